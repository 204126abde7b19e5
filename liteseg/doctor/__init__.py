"""Environment checks behind `liteseg doctor`; they run without any package installed."""
