"""The look of a report: one column that a phone shows whole."""

from __future__ import annotations

STYLE = """
* { box-sizing: border-box }
body { margin: 0 auto; padding: 16px; max-width: 1120px; color: #1d2530; background: #fff;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { margin: 0; font-size: 26px; overflow-wrap: anywhere }
h2 { margin: 28px 0 10px; padding-bottom: 4px; font-size: 18px; border-bottom: 1px solid #dde2e8 }
p { margin: 4px 0 10px; color: #5a6573; font-size: 13px }
table { border-collapse: collapse }
th { padding: 3px 10px 3px 0; font-weight: 500; text-align: left; vertical-align: top }
td { padding: 3px 0; vertical-align: top; overflow-wrap: anywhere }
pre { margin: 0; padding: 12px; overflow-x: auto; background: #f5f7f9; border-radius: 6px;
  font-size: 13px }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px }
.tiles div { padding: 10px 12px; background: #f5f7f9; border-radius: 8px }
.tiles b { display: block; font-size: 24px; font-variant-numeric: tabular-nums }
.tiles span { display: block; color: #5a6573; font-size: 13px }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr));
  gap: 14px }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif }
svg text { fill: #5a6573 }
svg .title { fill: #1d2530; font-weight: 600 }
svg .end { text-anchor: end }
svg .middle { text-anchor: middle }
svg .grid { stroke: #e3e7ec; fill: none }
svg polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round }
.classes { width: 100% }
.classes th { white-space: nowrap; vertical-align: middle }
.classes td { width: 70%; vertical-align: middle }
.classes th + th + th, .number { text-align: right; white-space: nowrap }
.classes .number { width: auto; padding-left: 10px; font-variant-numeric: tabular-nums }
.classes i { display: inline-block; width: 12px; height: 12px; margin-right: 6px;
  border: 1px solid #0003; border-radius: 2px; vertical-align: -1px }
.bar { height: 12px; background: #1f6fb4; border-radius: 2px }
.scroll { overflow-x: auto }
.confusion { font-size: 12px }
.confusion td { width: 32px; min-width: 32px; height: 26px; padding: 0; text-align: center;
  vertical-align: middle; border: 1px solid #eef1f4 }
.confusion th { padding: 0 8px 0 0; vertical-align: bottom; white-space: nowrap }
.confusion th span { writing-mode: vertical-rl; transform: rotate(180deg) }
figure { margin: 0 0 16px }
figcaption { margin-bottom: 4px; font-weight: 500; overflow-wrap: anywhere }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: 6px }
.row img { display: block; width: 100% }
.row span { color: #5a6573; font-size: 12px }
@media (max-width: 640px) {
  body { padding: 12px }
  .row { grid-template-columns: repeat(2, 1fr) }
  .classes { font-size: 13px }
  .classes td { width: 35% }
  .classes .number { padding-left: 6px }
}
"""
