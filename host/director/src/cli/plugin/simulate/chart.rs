//! The servers' shares over time as a picture.

use std::fmt::Write as _;

use wvs_plugin::simulation::Outcome;

const WIDTH: usize = 880;
const HEIGHT: usize = 400;

/// The plot's place: its left, top, right and bottom edge.
const LEFT: f64 = 56.0;
const TOP: f64 = 56.0;
const RIGHT: f64 = 600.0;
const BOTTOM: f64 = 352.0;

/// Where the names of the servers begin, and how far apart they are.
const LEGEND: usize = 624;
const LINE_HEIGHT: usize = 20;

/// Colours that stay apart for the colour-blind (Okabe and Ito 2008, without black), on a light ground
/// and on a dark one.
const COLOURS: [&str; 7] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"];

/// The colour of all further servers together.
const REST: &str = "#9aa0a6";

/// The colour of texts and lines, for both grounds.
const TEXT: &str = "#7d8590";

/// Characters shown of the plugin's name.
const NAME_MAX: usize = 64;

/// An SVG picture: for each interval of time a column, in it the part of the new connections that each
/// server got.
pub(super) fn draw(plugin: &str, outcome: &Outcome) -> String {
    let title = format!("{}: shares of new connections", escape(plugin));
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" font-family="sans-serif" font-size="12" fill="{TEXT}">
<title>{title}</title>
<text x="8" y="24" font-size="15" font-weight="600">{title}</text>
"#
    );
    // Without it the ground shows through between the columns.
    svg.push_str("<g shape-rendering=\"crispEdges\">\n");
    draw_columns(&mut svg, outcome);
    svg.push_str("</g>\n");
    draw_axes(&mut svg, outcome);
    draw_legend(&mut svg, outcome);
    svg.push_str("</svg>\n");
    svg
}

fn draw_columns(svg: &mut String, outcome: &Outcome) {
    let columns = &outcome.timeline.placed;
    let width = (RIGHT - LEFT) / columns.len().max(1) as f64;
    for (column, placed) in columns.iter().enumerate() {
        let total: u64 = placed.iter().copied().map(u64::from).sum();
        if total == 0 {
            continue;
        }
        let x = LEFT + column as f64 * width;
        let mut top = TOP;
        for (group, count) in groups(placed).into_iter().enumerate() {
            let height = (BOTTOM - TOP) * count as f64 / total as f64;
            if count > 0 {
                // Writing to a String cannot fail.
                let _ = writeln!(
                    svg,
                    r#"<rect x="{x:.2}" y="{top:.2}" width="{width:.2}" height="{height:.2}" fill="{}"/>"#,
                    colour(group)
                );
            }
            top += height;
        }
    }
}

fn draw_axes(svg: &mut String, outcome: &Outcome) {
    for part in 0..=4 {
        let y = TOP + (BOTTOM - TOP) * f64::from(part) / 4.0;
        let _ = writeln!(
            svg,
            r#"<line x1="{LEFT}" y1="{y}" x2="{RIGHT}" y2="{y}" stroke="{TEXT}" stroke-opacity="0.4"/>"#
        );
        let _ = writeln!(
            svg,
            r#"<text x="{}" y="{}" text-anchor="end">{} %</text>"#,
            LEFT - 6.0,
            y + 4.0,
            100 - part * 25
        );
    }
    let timeline = &outcome.timeline;
    let end_ms = timeline.interval_ms.saturating_mul(timeline.placed.len() as u64);
    for part in 0..=4_u32 {
        let x = LEFT + (RIGHT - LEFT) * f64::from(part) / 4.0;
        let seconds = end_ms as f64 * f64::from(part) / 4_000.0;
        let _ = writeln!(
            svg,
            r#"<text x="{x}" y="{}" text-anchor="middle">{seconds:.1} s</text>"#,
            BOTTOM + 18.0
        );
    }
}

fn draw_legend(svg: &mut String, outcome: &Outcome) {
    let names: Vec<_> = outcome
        .servers
        .iter()
        .map(|server| {
            let (share, due) = (server.share * 100.0, server.due * 100.0);
            format!("{}  {share:.1} % (by weight {due:.1} %)", server.address)
        })
        .collect();
    let mut y = 66;
    let rest = names.len().saturating_sub(COLOURS.len());
    let others = (rest > 0).then(|| format!("{rest} more"));
    for (group, name) in names.iter().take(COLOURS.len()).chain(&others).enumerate() {
        let _ = writeln!(
            svg,
            r#"<rect x="{LEGEND}" y="{}" width="10" height="10" fill="{}"/>"#,
            y - 9,
            colour(group)
        );
        let _ = writeln!(svg, r#"<text x="{}" y="{y}" font-size="11">{name}</text>"#, LEGEND + 16);
        y += LINE_HEIGHT;
    }
}

/// The connections of the servers with a colour of their own, and those of all others together.
fn groups(placed: &[u32]) -> Vec<u64> {
    let (own, rest) = placed.split_at(placed.len().min(COLOURS.len()));
    let rest = rest.iter().copied().map(u64::from).sum();
    own.iter().copied().map(u64::from).chain([rest]).collect()
}

fn colour(group: usize) -> &'static str {
    COLOURS.get(group).copied().unwrap_or(REST)
}

/// A text within XML, where control characters may not be.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars().take(NAME_MAX) {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            char if char.is_control() => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_do_not_break_the_picture() {
        assert_eq!(escape("a<b>&\"\u{1b}\u{ffff}"), "a&lt;b&gt;&amp;\"\u{fffd}\u{fffd}");
    }

    #[test]
    fn servers_without_a_colour_are_drawn_together() {
        assert_eq!(groups(&[1, 2]), [1, 2, 0]);
        assert_eq!(groups(&[1; 9]), [1, 1, 1, 1, 1, 1, 1, 2]);
    }
}
