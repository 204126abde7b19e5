"""Configs: YAML with inheritance, a schema, checks of everything at once, and building."""
