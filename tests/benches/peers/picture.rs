//! The figures as a picture: bars in groups, readable on white and on black.

use std::fmt::Write as _;

use crate::peer::Peer;
use crate::results::{Metric, Results};

/// What is shown, from left to right and from top to bottom.
const GROUPS: [Metric; 8] = [
    Metric::OneStream,
    Metric::FourStreamsUp,
    Metric::FourStreamsDown,
    Metric::Connections,
    Metric::Datagrams,
    Metric::LatencyP99,
    Metric::CpuPerGigabyte,
    Metric::CpuPerThousandConnections,
];

const PEERS: [Peer; 5] = [Peer::Wvs, Peer::Nftables, Peer::Haproxy, Peer::Nginx, Peer::Reflector];

// All in pixels.
const COLUMNS: usize = 2;
const COLUMN_WIDTH: usize = 440;
const HEAD_HEIGHT: usize = 64;
const GROUP_HEIGHT: usize = 146;
const TITLE_HEIGHT: usize = 26;
const ROW_HEIGHT: usize = 21;
const BAR_HEIGHT: usize = 14;
const LABEL_WIDTH: usize = 76;
const BAR_WIDTH_MAX: f64 = 200.0;

// In the middle between white and black, so that both can be behind them.
const TEXT: &str = "#7d8590";
const DIRECTOR: &str = "#8957e5";
const PEER: &str = "#539bf5";
const LIMIT: &str = "#9aa4af";

/// The bars of a group share a scale, whose end is the group's greatest value.
pub(crate) fn draw(results: &Results, machine: &str) -> String {
    let groups: Vec<_> = GROUPS.into_iter().filter(|metric| results.has(*metric)).collect();
    let width = COLUMNS * COLUMN_WIDTH;
    let height = HEAD_HEIGHT + groups.len().div_ceil(COLUMNS) * GROUP_HEIGHT;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" font-size="12" fill="{TEXT}">
<title>WVS beside kernel nftables, HAProxy, nginx and the limit of the TUN device</title>
<text x="8" y="22" font-size="15" font-weight="600">WVS, each connection placed by a wasm plugin, beside its peers</text>
<text x="8" y="42">{}</text>
"#,
        escape(machine)
    );
    for (index, metric) in groups.into_iter().enumerate() {
        let x = 8 + index % COLUMNS * COLUMN_WIDTH;
        let y = HEAD_HEIGHT + index / COLUMNS * GROUP_HEIGHT;
        draw_group(&mut svg, results, metric, x, y);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_group(svg: &mut String, results: &Results, metric: Metric, x: usize, y: usize) {
    let better = if metric.is_better_when_less() { "less" } else { "more" };
    let (name, unit, title_y) = (metric.name(), metric.unit(), y + 16);
    let _ = writeln!(
        svg,
        r#"<text x="{x}" y="{title_y}"><tspan font-weight="600" font-size="13">{name}</tspan>, {unit}; {better} is better</text>"#
    );
    let medians = PEERS.map(|peer| results.median(metric, peer));
    let greatest = medians.into_iter().flatten().fold(0.0, f64::max);
    let (bar_x, mut y) = (x + LABEL_WIDTH, y + TITLE_HEIGHT);
    for (peer, median) in PEERS.into_iter().zip(medians) {
        let (color, weight) = match peer {
            Peer::Wvs => (DIRECTOR, "600"),
            Peer::Reflector => (LIMIT, "400"),
            Peer::Nftables | Peer::Haproxy | Peer::Nginx => (PEER, "400"),
        };
        let text_y = y + 11;
        let label_x = bar_x - 8;
        let _ = writeln!(
            svg,
            r#"<text x="{label_x}" y="{text_y}" text-anchor="end" font-weight="{weight}">{peer}</text>"#
        );
        let (length, text) = match median {
            Some(median) => (median / greatest * BAR_WIDTH_MAX, metric.format(median)),
            None => (0.0, "not applicable".to_owned()),
        };
        if length > 0.0 {
            let _ = writeln!(
                svg,
                r#"<rect x="{bar_x}" y="{y}" width="{length:.1}" height="{BAR_HEIGHT}" rx="2" fill="{color}"/>"#
            );
        }
        let ratio = match results.ratio_to(metric, peer) {
            Some(ratio) if peer != Peer::Wvs => format!("  (WVS {ratio:.2} ×)"),
            _ => String::new(),
        };
        let value_x = bar_x as f64 + length + 6.0;
        let _ = writeln!(
            svg,
            r#"<text x="{value_x:.1}" y="{text_y}" font-weight="{weight}">{text}{ratio}</text>"#
        );
        y += ROW_HEIGHT;
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
