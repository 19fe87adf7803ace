//! The form of a `keepalived.conf`: lines of words, some of which begin a block in braces.

use crate::import::{Note, line_number};

/// Words of all statements together. A real server with a check takes some twenty.
const WORDS_MAX: usize = 500_000;

/// Blocks within blocks. keepalived's own are five deep.
const DEPTH_MAX: usize = 16;

/// One line, with the block that it begins, if it begins one.
#[derive(Debug)]
pub(super) struct Statement {
    /// Where it stands.
    pub(super) line: u32,
    /// Its words without quotes and comments; at least one, perhaps an empty one.
    pub(super) words: Vec<String>,
    /// What is between the braces behind it.
    pub(super) block: Option<Vec<Self>>,
}

impl Statement {
    /// The first word.
    pub(super) fn keyword(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words behind the first.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.words.iter().skip(1).map(String::as_str)
    }

    /// The word behind the first, or nothing.
    pub(super) fn value(&self) -> &str {
        self.words.get(1).map_or("", String::as_str)
    }

    /// What is in its block.
    pub(super) fn statements(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// A note that shows the statement without its block.
    pub(super) fn note(&self, what: &str) -> Note {
        Note::new(self.line, &self.words.join(" "), what)
    }

    /// Why the statement cannot be taken for what it seems to be: it depends on more than this text.
    pub(super) fn dependence(&self) -> Option<&'static str> {
        let keyword = self.keyword();
        if keyword.starts_with('@') {
            Some("only for some hosts or configurations; left out")
        } else if keyword.starts_with("include") {
            Some("not read; put the file's text here and import again")
        } else if self.words.iter().any(|word| has_variable(word)) {
            Some("variables are not followed; put their values here and import again")
        } else {
            None
        }
    }
}

/// Whether a word has `$NAME`, `${NAME}` or `~SEQ(`, which keepalived would replace.
fn has_variable(word: &str) -> bool {
    let starts_name = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '{');
    word.contains("~SEQ(") || word.split('$').skip(1).any(|rest| rest.starts_with(starts_name))
}

/// Reads a whole text, whatever it is. What is wrong with its form is noted.
pub(super) fn parse(text: &str) -> (Vec<Statement>, Vec<Note>) {
    let mut parser = Parser::default();
    for (index, line) in text.lines().enumerate() {
        parser.line(line_number(index), line);
        if parser.words > WORDS_MAX {
            let what = format!("more than {WORDS_MAX} words; the rest is left out");
            parser.notes.push(Note { line: line_number(index), what });
            break;
        }
    }
    parser.finish()
}

#[derive(Default)]
struct Parser {
    /// The statements of each open block, the file's own first.
    open: Vec<Vec<Statement>>,
    top: Vec<Statement>,
    /// Blocks that are too deep to be kept.
    too_deep: usize,
    words: usize,
    notes: Vec<Note>,
}

/// What a line consists of.
enum Token {
    Word(String),
    Open,
    Close,
}

impl Parser {
    fn line(&mut self, line: u32, text: &str) {
        let (tokens, is_complete) = tokens(text);
        if !is_complete {
            let what = "a quotation mark without its fellow; taken up to the end of the line";
            self.notes.push(Note::new(line, text.trim(), what));
        }
        let mut words = Vec::new();
        for token in tokens {
            match token {
                Token::Word(word) => {
                    self.words += 1;
                    words.push(word);
                }
                Token::Open => {
                    self.statement(line, std::mem::take(&mut words));
                    self.open(line);
                }
                Token::Close => {
                    self.statement(line, std::mem::take(&mut words));
                    self.close(line);
                }
            }
        }
        self.statement(line, words);
    }

    fn current(&mut self) -> &mut Vec<Statement> {
        self.open.last_mut().unwrap_or(&mut self.top)
    }

    fn statement(&mut self, line: u32, words: Vec<String>) {
        if !words.is_empty() && self.too_deep == 0 {
            self.current().push(Statement { line, words, block: None });
        }
    }

    fn open(&mut self, line: u32) {
        if self.too_deep > 0 || self.open.len() == DEPTH_MAX {
            if self.too_deep == 0 {
                self.notes.push(Note::new(line, "{", "too many blocks within blocks; left out"));
            }
            self.too_deep += 1;
            return;
        }
        // The brace may stand in a line of its own, but not behind another block.
        if self.current().last().is_none_or(|statement| statement.block.is_some()) {
            self.notes.push(Note::new(line, "{", "nothing begins a block here; left out"));
            let words = vec![String::new()];
            self.current().push(Statement { line, words, block: None });
        }
        self.open.push(Vec::new());
    }

    fn close(&mut self, line: u32) {
        if self.too_deep > 0 {
            self.too_deep -= 1;
        } else if let Some(block) = self.open.pop() {
            if let Some(statement) = self.current().last_mut() {
                statement.block = Some(block);
            }
        } else {
            self.notes.push(Note::new(line, "}", "closes no block; left out"));
        }
    }

    fn finish(mut self) -> (Vec<Statement>, Vec<Note>) {
        while let Some(block) = self.open.pop() {
            let Some(statement) = self.current().last_mut() else { break };
            statement.block = Some(block);
            let note = statement.note("its block is not closed; taken up to the end of the file");
            self.notes.push(note);
        }
        (self.top, self.notes)
    }
}

/// The tokens of a line, and whether each quotation mark had its fellow.
fn tokens(line: &str) -> (Vec<Token>, bool) {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars().peekable();
    let mut is_complete = true;
    while let Some(c) = characters.next() {
        let ends = characters.peek().is_none_or(|next| next.is_whitespace());
        match c {
            '#' | '!' => break,
            '"' => {
                is_complete = quoted(&mut characters, word.get_or_insert_default());
            }
            '{' if word.is_none()
                || ends && !word.as_deref().is_some_and(|word| word.ends_with('$')) =>
            {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(Token::Open);
            }
            '}' if word.is_none() => tokens.push(Token::Close),
            c if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    (tokens, is_complete)
}

/// Takes what is in quotes up to the closing one; `false` when there is none.
fn quoted(characters: &mut impl Iterator<Item = char>, word: &mut String) -> bool {
    while let Some(c) = characters.next() {
        match c {
            '"' => return true,
            '\\' => match characters.next() {
                Some(c @ ('"' | '\\')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => word.push('\\'),
            },
            c => word.push(c),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Statements as they would be written without comments, and what was noted.
    fn shown(text: &str) -> String {
        fn show(statements: &[Statement], shown: &mut String) {
            for statement in statements {
                shown.push_str(&format!("{}:{:?}", statement.line, statement.words));
                if let Some(block) = &statement.block {
                    shown.push('{');
                    show(block, shown);
                    shown.push('}');
                }
            }
        }
        let (statements, notes) = parse(text);
        let mut shown = String::new();
        show(&statements, &mut shown);
        for note in notes {
            shown.push_str(&format!("\n{note}"));
        }
        shown
    }

    #[test]
    fn words_blocks_quotes_and_comments_are_told_apart() {
        for (text, wanted) in [
            ("", ""),
            ("a b ! c\n# d\ne#f", r#"1:["a", "b"]3:["e"]"#),
            ("a { b 1\n c {\n}\n}\nd", r#"1:["a"]{1:["b", "1"]2:["c"]{}}5:["d"]"#),
            ("a\n{\nb\n}", r#"1:["a"]{3:["b"]}"#),
            ("a 80{\n}", r#"1:["a", "80"]{}"#),
            (r#"a "b # {c}" "d\"e\f" "" f"g h"i"#, r#"1:["a", "b # {c}", "d\"e\\f", "", "fg hi"]"#),
            ("a x{2} ${b} b}", r#"1:["a", "x{2}", "${b}", "b}"]"#),
        ] {
            assert_eq!(shown(text), wanted, "{text}");
        }
    }

    #[test]
    fn wrong_form_is_noted_and_loses_no_more_than_it_must() {
        for (text, wanted) in [
            (
                "a {\nb",
                "1:[\"a\"]{2:[\"b\"]}\nline 1: a: its block is not closed; taken up to the end of the file",
            ),
            ("}\na", "2:[\"a\"]\nline 1: }: closes no block; left out"),
            (
                "{\na\n}\nb",
                "1:[\"\"]{2:[\"a\"]}4:[\"b\"]\nline 1: {: nothing begins a block here; left out",
            ),
            (
                "a \"b",
                "1:[\"a\", \"b\"]\nline 1: a \"b: a quotation mark without its fellow; taken up to the end of the line",
            ),
        ] {
            assert_eq!(shown(text), wanted, "{text}");
        }
        let deep = "a {\n".repeat(1_000) + &"}\n".repeat(1_000) + "b";
        let shown = shown(&deep);
        assert!(shown.contains("1001:[\"b\"]") || shown.contains("2001:[\"b\"]"), "{shown}");
        assert!(shown.contains("too many blocks within blocks"), "{shown}");
    }

    #[test]
    fn what_depends_on_more_than_the_text_is_known() {
        let dependence = |text: &str| parse(text).0[0].dependence().is_some();
        for text in
            ["@main weight 1", "include a.conf", "weight $W", "weight ${W}", "a ~SEQ(i,1,2)"]
        {
            assert!(dependence(text), "{text}");
        }
        for text in ["weight 1", "regex foo$", "regex \"a$|b\"", "a user@host"] {
            assert!(!dependence(text), "{text}");
        }
    }
}
