//! The figures as tables, for terminals and for documents.

use std::fmt::Write as _;

use crate::peer::Peer;
use crate::results::{Metric, Results};

const ABSENT: &str = "-";

/// A row for each figure: the medians, the director's ratios to the others, and the goals.
pub(crate) fn full(results: &Results) -> Vec<Vec<String>> {
    let mut head = vec!["work".to_owned(), "unit".to_owned()];
    head.extend(Peer::ALL.map(|peer| peer.to_string()));
    head.extend(others().map(|peer| format!("to {peer}")));
    head.push("goals".to_owned());
    let mut rows = vec![head];
    for metric in measured(results) {
        let mut row = vec![metric.name().to_owned(), metric.unit().to_owned()];
        row.extend(Peer::ALL.map(|peer| cell(results, metric, peer)));
        row.extend(others().map(|peer| {
            let ratio = results.ratio_to(metric, peer);
            ratio.map_or(ABSENT.to_owned(), |ratio| format!("{ratio:.2}"))
        }));
        let goals = results.goals(metric).into_iter().map(|(goal, is_met)| match is_met {
            Some(true) => format!("{goal} met"),
            Some(false) => format!("{goal} NOT met"),
            None => format!("{goal} ?"),
        });
        row.push(goals.collect::<Vec<_>>().join(", "));
        rows.push(row);
    }
    rows
}

/// The medians alone, the director's first.
pub(crate) fn short(results: &Results) -> Vec<Vec<String>> {
    let peers = || [Peer::Wvs].into_iter().chain(others());
    let mut head = vec![String::new()];
    head.extend(peers().map(|peer| peer.to_string()));
    let mut rows = vec![head];
    for metric in measured(results) {
        let mut row = vec![format!("{}, {}", metric.name(), metric.unit())];
        row.extend(peers().map(|peer| cell(results, metric, peer)));
        rows.push(row);
    }
    rows
}

fn others() -> impl Iterator<Item = Peer> {
    Peer::ALL.into_iter().filter(|peer| *peer != Peer::Wvs)
}

fn measured(results: &Results) -> impl Iterator<Item = Metric> {
    Metric::ALL.into_iter().filter(|metric| results.has(*metric))
}

fn cell(results: &Results, metric: Metric, peer: Peer) -> String {
    results.median(metric, peer).map_or(ABSENT.to_owned(), |median| metric.format(median))
}

/// In columns, for a terminal.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let width_of = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = width_of(column).unwrap_or(0);
            // Words to the left, numbers to the right.
            let is_last = column + 1 == row.len();
            let _ = match column {
                0 | 1 => write!(text, "{cell:width$}  "),
                _ if is_last => write!(text, "{cell}"),
                _ => write!(text, "{cell:>width$}  "),
            };
        }
        text.push('\n');
    }
    text
}

/// In Markdown.
pub(crate) fn markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|{}", " --- |".repeat(row.len()));
        }
    }
    text
}
