//! SVG charts, small enough to be written by hand.

use std::fmt::Write as _;

/// One bar.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) ours: bool,
}

const LEFT: f64 = 250.0;
const WIDE: f64 = 480.0;

/// Horizontal bars, one below the other.
pub(crate) fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let mut body = String::new();
    for (i, bar) in bars.iter().enumerate() {
        let y = 40 + 24 * i;
        let (width, text) = (bar.value / most * WIDE, y + 13);
        let colour = if bar.ours { "#2563eb" } else { "#9ca3af" };
        let after = LEFT + width + 6.0;
        writeln!(
            body,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"17\" fill=\"{colour}\"/>\
             <text x=\"{after:.1}\" y=\"{text}\">{} {unit}</text>",
            LEFT - 8.0,
            bar.label.replace("**", ""),
            number(bar.value),
        )
        .unwrap();
    }
    framed(title, 50 + 24 * bars.len(), &body)
}

/// One line through its points, over a logarithmic axis.
pub(crate) struct Line {
    pub(crate) label: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

const COLOURS: [&str; 4] = ["#2563eb", "#dc2626", "#16a34a", "#9333ea"];

/// Lines, each scaled to its own first point: 1 means as at the start.
pub(crate) fn lines(title: &str, lines: &[Line]) -> String {
    let scaled = |line: &Line| -> Vec<(f64, f64)> {
        let first = line.points.first().map_or(1.0, |point| point.1);
        line.points.iter().map(|(x, y)| (x.max(1.0).log10(), y / first)).collect()
    };
    let all: Vec<Vec<(f64, f64)>> = lines.iter().map(scaled).collect();
    let top = all.iter().flatten().map(|point| point.1).fold(2.0, f64::max);
    let place = |(x, y): (f64, f64)| (70.0 + x * 120.0, 330.0 - y / top * 200.0);
    let mut body = String::new();
    for power in 0..=5 {
        let (x, _) = place((f64::from(power), 0.0));
        let label = 10_u64.pow(power);
        writeln!(body, "<text x=\"{x}\" y=\"350\" text-anchor=\"middle\">{label}</text>").unwrap();
    }
    let (_, one) = place((0.0, 1.0));
    writeln!(
        body,
        "<line x1=\"70\" x2=\"690\" y1=\"{one:.1}\" y2=\"{one:.1}\" stroke=\"#bbb\"/>\
         <text x=\"62\" y=\"{:.1}\" text-anchor=\"end\">× 1</text>",
        one + 4.0
    )
    .unwrap();
    for (i, (line, points)) in lines.iter().zip(&all).enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path: Vec<String> =
            points.iter().map(|p| place(*p)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let y = 44 + 18 * i;
        writeln!(
            body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"470\" y=\"{y}\" fill=\"{colour}\">{}</text>",
            path.join(" "),
            line.label
        )
        .unwrap();
    }
    framed(title, 365, &body)
}

fn framed(title: &str, height: usize, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"820\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"20\" y=\"24\" font-size=\"15\">{title}</text>\n{body}</svg>\n"
    )
}

fn number(value: f64) -> String {
    match value {
        v if v < 1.0 => format!("{v:.3}"),
        v if v < 10.0 => format!("{v:.2}"),
        v => format!("{v:.0}"),
    }
}
