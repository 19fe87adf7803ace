//! Text that a module chose, fit for a terminal and a log.

/// Characters shown of a name.
pub(crate) const NAME_MAX: usize = 64;

/// Characters shown of a reason or an explanation.
pub(crate) const EXPLANATION_MAX: usize = 256;

/// `text` without what moves a terminal's cursor, forges a line or turns the order of writing, and
/// at most `max` characters of it.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let text = text.trim();
    let shown = text.chars().take(max).map(|char| if is_harmless(char) { char } else { ' ' });
    let mut shown: String = shown.collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

fn is_harmless(char: char) -> bool {
    let is_separator_or_direction = matches!(
        char,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    !char.is_control() && !is_separator_or_direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_reaches_the_terminal_but_characters() {
        assert_eq!(printable("a\x1b[2J\nb\r\u{9b}c\u{202e}d\u{2028}e", 64), "a [2J b  c d e");
    }

    #[test]
    fn long_text_is_cut_where_it_is_seen() {
        assert_eq!(printable("äöü", 3), "äöü");
        assert_eq!(printable("äöüß", 3), "äöü…");
    }
}
