//! Text to tokens.

use std::ops::Range;

use super::ast::CompareOp;
use super::error::FilterError;
use super::{MAX_BYTES, MAX_TEXT_CHARS};

/// A token and the bytes it was read from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) at: Range<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    /// A word and its keys: `tags.region` is `tags` with the key `region`.
    Path(String, Option<String>),
    Text(String),
    Number(f64),
    /// Seconds.
    Duration(i64),
    Compare(CompareOp),
    And,
    Or,
    Bang,
    Plus,
    Minus,
    Open,
    Close,
    OpenList,
    CloseList,
    Comma,
    End,
}

/// Units of durations and their seconds, smallest first.
pub(super) const UNITS: [(char, u64); 5] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400), ('w', 604_800)];

/// Whether a key needs no quotes.
pub(super) fn is_plain_key(key: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(is_key_byte);
    key.split('.').all(plain)
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_key_byte(byte: u8) -> bool {
    is_word_byte(byte) || byte == b'-'
}

/// All tokens of `text`, the last one is [`TokenKind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    if text.len() > MAX_BYTES {
        let message = format!("the filter has {} bytes, {MAX_BYTES} are allowed", text.len());
        return Err(FilterError::new("", 0..0, message));
    }
    let mut lexer = Lexer { text, position: 0 };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next()?;
        let end = token.kind == TokenKind::End;
        tokens.push(token);
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    position: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.rest().bytes().next()
    }

    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> String {
        let taken: String = self.rest().bytes().take_while(|byte| fits(*byte)).map(char::from).collect();
        self.position += taken.len();
        taken
    }

    fn error(&self, at: Range<usize>, message: impl Into<String>) -> FilterError {
        FilterError::new(self.text, at, message)
    }

    fn next(&mut self) -> Result<Token, FilterError> {
        let space = self.rest().len() - self.rest().trim_start().len();
        self.position += space;
        let start = self.position;
        let Some(first) = self.peek() else {
            return Ok(Token { kind: TokenKind::End, at: start..start });
        };
        let kind = if is_word_start(first) {
            self.path()?
        } else if first.is_ascii_digit() {
            self.number()?
        } else if first == b'"' || first == b'\'' {
            TokenKind::Text(self.quoted()?)
        } else {
            self.sign()?
        };
        Ok(Token { kind, at: start..self.position })
    }

    fn path(&mut self) -> Result<TokenKind, FilterError> {
        let word = self.take_while(is_word_byte);
        if self.peek() != Some(b'.') {
            return Ok(TokenKind::Path(word, None));
        }
        let mut key = String::new();
        while self.peek() == Some(b'.') {
            self.position += 1;
            if !key.is_empty() {
                key.push('.');
            }
            let start = self.position;
            let part = match self.peek() {
                Some(b'"' | b'\'') => self.quoted()?,
                _ => self.take_while(is_key_byte),
            };
            if part.is_empty() {
                return Err(self.error(start..start + 1, format!("a name must follow \"{word}.\"")));
            }
            key.push_str(&part);
        }
        Ok(TokenKind::Path(word, Some(key)))
    }

    fn number(&mut self) -> Result<TokenKind, FilterError> {
        let start = self.position;
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        if let Some(unit) = self.peek().filter(u8::is_ascii_alphabetic)
            && !(unit.eq_ignore_ascii_case(&b'e') && self.exponent_follows())
        {
            let suffix = self.take_while(is_word_byte);
            let at = start..self.position;
            let wrong =
                || self.error(at.clone(), format!("\"{digits}{suffix}\" is neither a number nor a duration"));
            let Some((_, size)) = UNITS.iter().find(|(unit, _)| suffix == unit.to_string()) else {
                return Err(wrong().suggest(Some("durations look like 30s, 15m, 2h, 7d or 4w".to_owned())));
            };
            let seconds = digits
                .parse::<i64>()
                .ok()
                .and_then(|count| count.checked_mul(size.cast_signed()))
                .filter(|seconds| *seconds <= MAX_DURATION_S)
                .ok_or_else(|| self.error(at.clone(), "the duration is longer than 100 years"))?;
            return Ok(TokenKind::Duration(seconds));
        }
        if self.peek() == Some(b'.') {
            self.position += 1;
            self.take_while(|byte| byte.is_ascii_digit());
        }
        if self.peek().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'e')) && self.exponent_follows() {
            self.position += 2;
            self.take_while(|byte| byte.is_ascii_digit());
        }
        let at = start..self.position;
        let text = self.text.get(at.clone()).unwrap_or_default();
        text.parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .map(TokenKind::Number)
            .ok_or_else(|| self.error(at, format!("the number {text} is too large")))
    }

    /// Whether an `e` here begins an exponent.
    fn exponent_follows(&self) -> bool {
        let mut after = self.rest().bytes().skip(1);
        match after.next() {
            Some(b'+' | b'-') => after.next().is_some_and(|byte| byte.is_ascii_digit()),
            Some(byte) => byte.is_ascii_digit(),
            None => false,
        }
    }

    fn quoted(&mut self) -> Result<String, FilterError> {
        let start = self.position;
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map_or('"', |(_, c)| c);
        let mut text = String::new();
        let mut escaped = false;
        let mut end = None;
        for (index, c) in chars {
            if escaped {
                match c {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    // In patterns `\*` must stay `\*`; everywhere else a needless backslash stays as well.
                    '"' | '\'' | '\\' => text.push(c),
                    c => text.extend(['\\', c]),
                }
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                end = Some(index + 1);
                break;
            } else {
                text.push(c);
            }
        }
        let Some(length) = end else {
            return Err(self.error(start..self.text.len(), "the text's closing quote is missing"));
        };
        self.position += length;
        let at = start..self.position;
        if text.contains('\0') {
            return Err(self.error(at, "texts must not contain the character U+0000"));
        }
        if text.chars().count() > MAX_TEXT_CHARS {
            return Err(self.error(at, format!("the text has more than {MAX_TEXT_CHARS} characters")));
        }
        Ok(text)
    }

    fn sign(&mut self) -> Result<TokenKind, FilterError> {
        let start = self.position;
        let rest = self.rest();
        let (kind, length) = if let Some((sign, op)) =
            CompareOp::ALL.iter().find(|(sign, _)| rest.starts_with(sign))
        {
            (TokenKind::Compare(*op), sign.len())
        } else if rest.starts_with("&&") {
            (TokenKind::And, 2)
        } else if rest.starts_with("||") {
            (TokenKind::Or, 2)
        } else {
            let c = rest.chars().next().unwrap_or_default();
            let kind = match c {
                '(' => TokenKind::Open,
                ')' => TokenKind::Close,
                '[' => TokenKind::OpenList,
                ']' => TokenKind::CloseList,
                ',' => TokenKind::Comma,
                '!' => TokenKind::Bang,
                '+' => TokenKind::Plus,
                '-' => TokenKind::Minus,
                c => {
                    let suggestion = match c {
                        '=' => Some("equality is written =="),
                        '&' => Some("write \"and\""),
                        '|' => Some("write \"or\""),
                        '~' => Some("patterns are written: field matches \"a*\""),
                        _ => None,
                    };
                    let error = self.error(start..start + c.len_utf8(), format!("{c:?} has no meaning here"));
                    return Err(error.suggest(suggestion.map(str::to_owned)));
                }
            };
            (kind, c.len_utf8())
        };
        self.position += length;
        Ok(kind)
    }
}

/// 100 years.
const MAX_DURATION_S: i64 = 100 * 366 * 86_400;
