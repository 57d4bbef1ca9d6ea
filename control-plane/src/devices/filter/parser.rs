//! Tokens to a tree, by recursive descent: `or` binds weakest, then `and`, then `not`.

use std::ops::Range;

use super::ast::{CompareOp, Field, Filter, Instant, KEYED_FIELDS, Kind, Literal, PLAIN_FIELDS};
use super::error::{FilterError, nearest};
use super::lexer::{Token, TokenKind, tokens};
use super::{MAX_DEPTH, MAX_TERMS};

/// Words that mean something between fields and values.
const WORDS: [&str; 8] = ["and", "or", "not", "in", "matches", "has", "true", "false"];

pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    let mut parser = Parser { text, tokens: tokens(text)?, position: 0, depth: 0, terms: 0 };
    if parser.peek() == &TokenKind::End {
        let error = parser.error("the filter is empty");
        return Err(error.suggest(Some("for example: tags.region == \"eu\" and not blocked".to_owned())));
    }
    let filter = parser.any_of()?;
    match parser.peek() {
        TokenKind::End => Ok(filter),
        TokenKind::Close => Err(parser.error("there is no \"(\" for this \")\"")),
        _ => {
            Err(parser.error("\"and\", \"or\" or the end was expected here").suggest(parser.meant_operator()))
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    position: usize,
    depth: usize,
    terms: usize,
}

impl Parser<'_> {
    fn token(&self) -> &Token {
        const END: &Token = &Token { kind: TokenKind::End, at: 0..0 };
        self.tokens.get(self.position).or(self.tokens.last()).unwrap_or(END)
    }

    fn peek(&self) -> &TokenKind {
        &self.token().kind
    }

    fn take(&mut self) -> Token {
        let token = self.token().clone();
        self.position += 1;
        token
    }

    fn take_if(&mut self, kind: &TokenKind) -> bool {
        let fits = self.peek() == kind;
        self.position += usize::from(fits);
        fits
    }

    /// Whether the next token is this word; `and` and `&&` are the same.
    fn take_word(&mut self, word: &str) -> bool {
        let fits = match self.peek() {
            TokenKind::Path(path, None) => path == word,
            TokenKind::And => word == "and",
            TokenKind::Or => word == "or",
            _ => false,
        };
        self.position += usize::from(fits);
        fits
    }

    fn error(&self, message: impl Into<String>) -> FilterError {
        self.error_at(self.token().at.clone(), message)
    }

    fn error_at(&self, at: Range<usize>, message: impl Into<String>) -> FilterError {
        FilterError::new(self.text, at, message)
    }

    fn meant_operator(&self) -> Option<String> {
        match self.peek() {
            TokenKind::Path(word, _) => nearest(word, ["and", "or", "in", "matches"])
                .map(|meant| format!("did you mean \"{meant}\"?")),
            _ => None,
        }
    }

    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("the filter is nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn count_term(&mut self, at: Range<usize>) -> Result<(), FilterError> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(self.error_at(at, format!("the filter has more than {MAX_TERMS} comparisons")));
        }
        Ok(())
    }

    fn any_of(&mut self) -> Result<Filter, FilterError> {
        let first = self.all_of()?;
        let mut parts = vec![first];
        while self.take_word("or") {
            parts.push(self.all_of()?);
        }
        Ok(joined(parts, Filter::Or))
    }

    fn all_of(&mut self) -> Result<Filter, FilterError> {
        let first = self.unary()?;
        let mut parts = vec![first];
        while self.take_word("and") {
            parts.push(self.unary()?);
        }
        Ok(joined(parts, Filter::And))
    }

    fn unary(&mut self) -> Result<Filter, FilterError> {
        if self.take_if(&TokenKind::Bang) || self.take_word("not") {
            let inner = self.deeper(Self::unary)?;
            return Ok(Filter::Not(Box::new(inner)));
        }
        if self.take_if(&TokenKind::Open) {
            let inner = self.deeper(Self::any_of)?;
            self.expect(&TokenKind::Close, "\")\"")?;
            return Ok(inner);
        }
        self.condition()
    }

    fn expect(&mut self, kind: &TokenKind, name: &str) -> Result<(), FilterError> {
        if self.take_if(kind) { Ok(()) } else { Err(self.error(format!("{name} was expected here"))) }
    }

    fn condition(&mut self) -> Result<Filter, FilterError> {
        let at = self.token().at.clone();
        self.count_term(at.clone())?;
        if self.is_has() {
            self.position += 2;
            let field = self.field()?;
            self.expect(&TokenKind::Close, "\")\"")?;
            return Ok(Filter::Has(field));
        }
        let field = self.field()?;
        if let TokenKind::Compare(op) = *self.peek() {
            let operator = self.take().at;
            return self.comparison(field, op, operator);
        }
        if self.take_word("in") {
            return self.list(field);
        }
        if matches!(self.peek(), TokenKind::Path(word, None) if word == "not") {
            self.position += 1;
            if !self.take_word("in") {
                return Err(self.error("\"in\" was expected after \"not\" here"));
            }
            return Ok(Filter::Not(Box::new(self.list(field)?)));
        }
        if self.take_word("matches") {
            return self.pattern(field);
        }
        if field.kind() == Kind::Flag {
            return Ok(Filter::Flag(field));
        }
        let error = self.error(format!("an operator was expected after {field}"));
        let help = || match self.peek() {
            TokenKind::End => format!("to ask whether there is a value: has({field})"),
            _ => "the operators are == != < <= > >= in matches".to_owned(),
        };
        let suggestion = self.meant_operator().unwrap_or_else(help);
        Err(error.suggest(Some(suggestion)))
    }

    /// Whether `has(` comes next; a device may well have a tag of that name, but a tag is written `tags.has`.
    fn is_has(&self) -> bool {
        let next = self.tokens.get(self.position + 1).map(|token| &token.kind);
        matches!(self.peek(), TokenKind::Path(word, None) if word == "has") && next == Some(&TokenKind::Open)
    }

    fn field(&mut self) -> Result<Field, FilterError> {
        let Token { kind, at } = self.token().clone();
        let TokenKind::Path(word, key) = kind else {
            let message = match kind {
                TokenKind::End => "the filter ends where a field was expected",
                _ => "a field was expected here",
            };
            return Err(self
                .error(message)
                .suggest(Some(format!("fields are {}", field_names().join(", ")))));
        };
        self.position += 1;
        let plain = PLAIN_FIELDS.iter().find(|(name, _)| *name == word);
        let keyed = KEYED_FIELDS.iter().find(|(name, _)| *name == word);
        match (plain, keyed, key) {
            (Some((_, field)), _, None) => Ok(field.clone()),
            (_, Some((_, make)), Some(key)) => Ok(make(key)),
            (Some((name, _)), _, Some(_)) => Err(self.error_at(at, format!("{name} has no parts"))),
            (_, Some((name, _)), None) => {
                let example = if matches!(*name, "tags" | "attributes") { "region" } else { "kws" };
                let error = self.error_at(at, format!("{name} needs a name, as in {name}.{example}"));
                Err(error)
            }
            (None, None, key) => {
                let all = field_names();
                let names = all.iter().map(|name| name.trim_end_matches(".*"));
                let meant = nearest(&word, names.chain(WORDS));
                let written = if key.is_some() { format!("{word}.…") } else { word.clone() };
                let suggestion = match meant {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => format!("fields are {}", all.join(", ")),
                };
                Err(self.error_at(at, format!("there is no field \"{written}\"")).suggest(Some(suggestion)))
            }
        }
    }

    fn comparison(
        &mut self,
        field: Field,
        op: CompareOp,
        operator: Range<usize>,
    ) -> Result<Filter, FilterError> {
        let at = self.token().at.start;
        let value = self.value(&field)?;
        let at = at..self.end_before();
        let sign = op.as_str();
        let wrong = match (field.kind(), &value) {
            (Kind::Text, Literal::Text(_)) if op.is_order() => {
                Some((operator, format!("{field} has no order: \"{sign}\" cannot be used with it")))
            }
            (Kind::Value | Kind::Model, Literal::Text(_)) if op.is_order() => {
                Some((at, format!("\"{sign}\" compares numbers, and this is a text")))
            }
            (Kind::Version, Literal::Text(text))
                if op.is_order() && super::super::version::order(text).is_none() =>
            {
                Some((at, "this is not a version like \"1.2.3\"".to_owned()))
            }
            (Kind::Flag, Literal::Bool(_)) if op.is_order() => {
                Some((operator, format!("{field} is true or false: \"{sign}\" cannot be used with it")))
            }
            (Kind::Time, Literal::Time(_)) if !op.is_order() => Some((
                operator,
                format!("points in time are compared with <, <=, > or >=, not with \"{sign}\""),
            )),
            _ => None,
        };
        match wrong {
            Some((at, message)) => Err(self.error_at(at, message)),
            None => Ok(Filter::Compare(field, op, value)),
        }
    }

    fn list(&mut self, field: Field) -> Result<Filter, FilterError> {
        if matches!(field.kind(), Kind::Time | Kind::Flag) {
            return Err(self.error(format!("\"in\" cannot be used with {field}")));
        }
        self.expect(&TokenKind::OpenList, "\"[\"")?;
        let mut values = Vec::new();
        loop {
            let at = self.token().at.clone();
            if *self.peek() == TokenKind::CloseList && values.is_empty() {
                return Err(self.error("the list is empty"));
            }
            // The field itself was counted as one.
            if !values.is_empty() {
                self.count_term(at)?;
            }
            values.push(self.value(&field)?);
            if self.take_if(&TokenKind::CloseList) {
                return Ok(Filter::In(field, values));
            }
            self.expect(&TokenKind::Comma, "\",\" or \"]\"")?;
        }
    }

    fn pattern(&mut self, field: Field) -> Result<Filter, FilterError> {
        if matches!(field.kind(), Kind::Time | Kind::Flag) {
            return Err(self.error(format!("\"matches\" cannot be used with {field}")));
        }
        match self.take() {
            Token { kind: TokenKind::Text(pattern), .. } => Ok(Filter::Matches(field, pattern)),
            Token { at, .. } => {
                let error = self.error_at(at, "a pattern in quotes was expected here");
                Err(error.suggest(Some(format!("for example: {field} matches \"a*\""))))
            }
        }
    }

    /// Where the token before the next one ends.
    fn end_before(&self) -> usize {
        self.tokens.get(self.position.wrapping_sub(1)).map_or(self.text.len(), |token| token.at.end)
    }

    /// A value that fits the field.
    fn value(&mut self, field: &Field) -> Result<Literal, FilterError> {
        let Token { kind, at } = self.take();
        let (literal, found) = match kind {
            TokenKind::Text(text) => {
                if field.kind() == Kind::Time {
                    return match crate::time::parse_us(&text) {
                        Some(us) => Ok(Literal::Time(Instant::At(us))),
                        None => Err(self
                            .error_at(at, "this is not a point in time")
                            .suggest(Some("write \"2026-01-31T12:00:00Z\" or now - 1h".to_owned()))),
                    };
                }
                (Literal::Text(text), "a text")
            }
            TokenKind::Number(number) => (Literal::Number(number), "a number"),
            TokenKind::Minus | TokenKind::Plus => match self.take() {
                Token { kind: TokenKind::Number(number), .. } => {
                    // Negative zero is the same number, and has no other text.
                    let number = if kind == TokenKind::Minus && number != 0.0 { -number } else { number };
                    (Literal::Number(number), "a number")
                }
                Token { at, .. } => return Err(self.error_at(at, "a number was expected here")),
            },
            TokenKind::Path(word, None) if word == "true" => (Literal::Bool(true), "true or false"),
            TokenKind::Path(word, None) if word == "false" => (Literal::Bool(false), "true or false"),
            TokenKind::Path(word, None) if word == "now" => {
                (Literal::Time(Instant::FromNow(self.offset()?)), "a point in time")
            }
            TokenKind::Path(word, None) => {
                let error = self.error_at(at, "a value was expected here");
                return Err(error.suggest(Some(format!("texts need quotes: \"{word}\""))));
            }
            TokenKind::Path(_, Some(_)) => {
                return Err(self.error_at(at, "a value was expected here, and this is a field"));
            }
            TokenKind::Duration(_) => {
                let error = self.error_at(at, "a duration is no value");
                return Err(error.suggest(Some("times are written like now - 1h".to_owned())));
            }
            TokenKind::End => return Err(self.error_at(at, "the filter ends where a value was expected")),
            _ => return Err(self.error_at(at, "a value was expected here")),
        };
        let expected = match (field.kind(), &literal) {
            (Kind::Text | Kind::Version, Literal::Text(_))
            | (Kind::Value | Kind::Model, Literal::Text(_) | Literal::Number(_))
            | (Kind::Time, Literal::Time(_))
            | (Kind::Flag, Literal::Bool(_)) => return Ok(literal),
            (Kind::Text | Kind::Version, _) => "a text in quotes",
            (Kind::Value | Kind::Model, _) => "a number or a text in quotes",
            (Kind::Time, _) => "a point in time (\"2026-01-31T12:00:00Z\" or now - 1h)",
            (Kind::Flag, _) => "true or false",
        };
        Err(self.error_at(at, format!("{field} is compared with {expected}, and this is {found}")))
    }

    /// What follows `now`, in seconds.
    fn offset(&mut self) -> Result<i64, FilterError> {
        let sign = match self.peek() {
            TokenKind::Plus => 1,
            TokenKind::Minus => -1,
            _ => return Ok(0),
        };
        self.position += 1;
        match self.take() {
            Token { kind: TokenKind::Duration(seconds), .. } => Ok(sign * seconds),
            Token { at, .. } => {
                let error = self.error_at(at, "a duration was expected here");
                Err(error.suggest(Some("durations look like 30s, 15m, 2h, 7d or 4w".to_owned())))
            }
        }
    }
}

/// One filter from several; a single one stays itself.
fn joined(mut parts: Vec<Filter>, join: fn(Vec<Filter>) -> Filter) -> Filter {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => join(parts),
    }
}

/// The fields as they are listed in messages.
fn field_names() -> Vec<String> {
    let plain = PLAIN_FIELDS.iter().map(|(name, _)| (*name).to_owned());
    plain.chain(KEYED_FIELDS.iter().map(|(name, _)| format!("{name}.*"))).collect()
}
