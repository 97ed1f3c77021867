//! The results as a picture: one bar a row, as long as the part of the target that was reached.

use crate::report::{target, times};
use crate::rows::{Figures, Row, mib};

const WIDTH: f64 = 920.0;
const ROW: f64 = 34.0;
const TOP: f64 = 44.0;
/// Where bars begin, and how long one is that just reaches its target.
const LEFT: f64 = 345.0;
const UNIT: f64 = 130.0;
/// Bars are cut off at so many times the target.
const LONGEST: f64 = 2.6;

/// The picture. Its greys and colours can be read on light and on dark pages.
pub(crate) fn chart(rows: &[Row]) -> String {
    #[allow(clippy::cast_precision_loss)] // A few rows.
    let bottom = TOP + ROW * rows.len() as f64;
    let height = bottom + 14.0;
    let tick = LEFT + UNIT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" aria-label=\"How much of each speed target is reached\">\n\
         <style>\n\
         text {{ font: 13px system-ui, sans-serif; fill: #7d8590 }}\n\
         .small {{ font-size: 11px }}\n\
         .value {{ font-weight: 600 }}\n\
         .reached {{ fill: #2da44e }}\n\
         .missed {{ fill: #e5534b }}\n\
         .tick {{ stroke: #7d8590; stroke-width: 1.5; stroke-dasharray: 4 3 }}\n\
         </style>\n\
         <text x=\"{tick}\" y=\"20\" text-anchor=\"middle\">target</text>\n\
         <line class=\"tick\" x1=\"{tick}\" y1=\"28\" x2=\"{tick}\" y2=\"{bottom}\"/>\n"
    );
    let mut top = TOP;
    for row in rows {
        svg += &bar(row, top);
        top += ROW;
    }
    svg + "</svg>\n"
}

fn bar(row: &Row, top: f64) -> String {
    let spec = row.spec;
    let against = if spec.against.is_empty() {
        String::new()
    } else {
        format!("beside {}", spec.against)
    };
    let label = LEFT - 12.0;
    let (middle, second) = (top + 17.0, top + 24.0);
    let first = if spec.against.is_empty() {
        middle
    } else {
        top + 11.0
    };
    let text = format!(
        "<text x=\"{label}\" y=\"{first}\" text-anchor=\"end\">{}</text>\n\
         <text class=\"small\" x=\"{label}\" y=\"{second}\" text-anchor=\"end\">{}</text>\n",
        escape(spec.work),
        escape(&against),
    );
    let (Ok(measured), Some(reached)) = (&row.result, row.reached()) else {
        return format!(
            "{text}<text class=\"small\" x=\"{}\" y=\"{middle}\">not measured</text>\n",
            LEFT + 6.0
        );
    };
    let value = match &measured.figures {
        Figures::Times(pair, _) => times(pair.ratio()),
        Figures::Memory(bytes) => format!("{:.1} MiB a thread", mib(*bytes)),
    };
    let width = UNIT * reached.clamp(0.01, LONGEST);
    let class = if reached >= 1.0 { "reached" } else { "missed" };
    // A bar that is longer than there is room for ends in a point.
    let (right, y, bottom) = (LEFT + width, top + 4.0, top + 22.0);
    let point = if reached > LONGEST { right + 8.0 } else { right };
    let shape = format!(
        "<path class=\"{class}\" d=\"M{LEFT} {y}H{right:.1}L{point:.1} {}L{right:.1} {bottom}H{LEFT}Z\"/>\n",
        f64::midpoint(y, bottom),
    );
    let after = point.max(LEFT + UNIT) + 8.0;
    format!(
        "{text}{shape}<text x=\"{after:.1}\" y=\"{middle}\"><tspan class=\"value\">{}</tspan> ({})</text>\n",
        escape(&value),
        escape(&target(spec.target).replace(">=", "≥").replace("<=", "≤")),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(
            escape("a < b && \"c\" >= d"),
            "a &lt; b &amp;&amp; &quot;c&quot; &gt;= d"
        );
    }
}
