//! A filter's answer for one device.

use std::collections::BTreeMap;

use super::super::number::number;
use super::super::version;
use super::ast::{CompareOp, Field, Filter, Glob, Literal, glob_parts};

/// What filters can know of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The device's id.
    pub id: String,
    /// The name of its fleet.
    pub fleet: String,
    /// Its hardware class.
    pub hardware: String,
    /// The agent's version, once it reported one.
    pub agent_version: Option<String>,
    /// When the last message came, in microseconds since 1970 UTC.
    pub last_seen_us: Option<i64>,
    /// When it was enrolled or created.
    pub created_us: i64,
    /// Whether it is blocked.
    pub blocked: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// Tags that operators set.
    pub tags: BTreeMap<String, String>,
    /// Attributes that the device reported.
    pub attributes: BTreeMap<String, String>,
    /// What the slots should hold, by slot.
    pub desired: BTreeMap<String, SlotFacts>,
    /// What the slots hold, by slot.
    pub slots: BTreeMap<String, SlotFacts>,
}

/// A slot of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlotFacts {
    /// `empty`, `running`, `trial` or `failed`; empty text for desired slots.
    pub status: String,
    /// The model artifact's digest in hex.
    pub digest: Option<String>,
    /// The version number in the registry, if the registry knows the digest.
    pub version: Option<i64>,
}

/// A field's value on one device.
enum Value<'a> {
    Text(&'a str),
    Version(&'a str),
    Pair(&'a str),
    Model(&'a SlotFacts),
    Time(i64),
    Flag(bool),
}

impl Filter {
    /// Whether the device fits, when it is `now_us`.
    pub fn matches(&self, facts: &Facts, now_us: i64) -> bool {
        match self {
            Filter::And(parts) => parts.iter().all(|part| part.matches(facts, now_us)),
            Filter::Or(parts) => parts.iter().any(|part| part.matches(facts, now_us)),
            Filter::Not(inner) => !inner.matches(facts, now_us),
            // For values that are missing, too, != is the opposite of ==.
            Filter::Compare(field, CompareOp::Ne, value) => {
                !value_of(field, facts).is_some_and(|found| compare(&found, CompareOp::Eq, value, now_us))
            }
            Filter::Compare(field, op, value) => {
                value_of(field, facts).is_some_and(|found| compare(&found, *op, value, now_us))
            }
            Filter::In(field, values) => value_of(field, facts).is_some_and(|found| {
                values.iter().any(|value| compare(&found, CompareOp::Eq, value, now_us))
            }),
            Filter::Matches(field, pattern) => match value_of(field, facts) {
                Some(Value::Text(text) | Value::Version(text) | Value::Pair(text)) => glob(pattern, text),
                Some(Value::Model(SlotFacts { digest: Some(digest), .. })) => glob(pattern, digest),
                _ => false,
            },
            Filter::Has(field) => value_of(field, facts).is_some(),
            Filter::Flag(field) => matches!(value_of(field, facts), Some(Value::Flag(true))),
        }
    }
}

fn value_of<'a>(field: &Field, facts: &'a Facts) -> Option<Value<'a>> {
    // Both a slot that reports no model and a digest that nobody knows have no version; only the latter has a value.
    let model = |slots: &'a BTreeMap<String, SlotFacts>, slot: &String| {
        slots.get(slot).filter(|facts| facts.digest.is_some()).map(Value::Model)
    };
    match field {
        Field::Id => Some(Value::Text(&facts.id)),
        Field::Fleet => Some(Value::Text(&facts.fleet)),
        Field::Hardware => Some(Value::Text(&facts.hardware)),
        Field::AgentVersion => facts.agent_version.as_deref().map(Value::Version),
        Field::LastSeen => facts.last_seen_us.map(Value::Time),
        Field::Created => Some(Value::Time(facts.created_us)),
        Field::Blocked => Some(Value::Flag(facts.blocked)),
        Field::Connected => Some(Value::Flag(facts.connected)),
        Field::Tag(key) => facts.tags.get(key).map(|text| Value::Pair(text)),
        Field::Attribute(key) => facts.attributes.get(key).map(|text| Value::Pair(text)),
        Field::Running(slot) => model(&facts.slots, slot),
        Field::Desired(slot) => model(&facts.desired, slot),
        Field::Status(slot) => facts.slots.get(slot).map(|facts| Value::Text(&facts.status)),
    }
}

fn compare(found: &Value<'_>, op: CompareOp, value: &Literal, now_us: i64) -> bool {
    match (found, value) {
        (Value::Text(text) | Value::Pair(text) | Value::Version(text), Literal::Text(value))
            if !op.is_order() =>
        {
            op.holds(text, &value.as_str())
        }
        (Value::Version(text), Literal::Text(value)) => match (version::order(text), version::order(value)) {
            (Some(found), Some(value)) => op.holds(&found, &value),
            _ => false,
        },
        (Value::Pair(text), Literal::Number(value)) => {
            number(text).is_some_and(|found| op.holds(&found, value))
        }
        (Value::Model(model), Literal::Text(value)) => {
            model.digest.as_deref().is_some_and(|digest| op.holds(&digest, &value.as_str()))
        }
        // Version numbers are far below 2^53.
        (Value::Model(model), Literal::Number(value)) => {
            model.version.is_some_and(|version| op.holds(&(version as f64), value))
        }
        (Value::Time(us), Literal::Time(value)) => op.holds(us, &value.at_us(now_us)),
        (Value::Flag(found), Literal::Bool(value)) => op.holds(found, value),
        // The parser lets no other pair through.
        _ => false,
    }
}

/// Whether the text fits the pattern. Linear space, at most |pattern| × |text| steps.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let parts = glob_parts(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut part, mut at) = (0, 0);
    // Where to go on when what follows the last star does not fit: the star's place, and the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = text.get(at) {
        match parts.get(part) {
            Some(Glob::Any) => {
                star = Some((part, at));
                part += 1;
            }
            Some(Glob::One) => (part, at) = (part + 1, at + 1),
            Some(Glob::Just(expected)) if expected == c => (part, at) = (part + 1, at + 1),
            _ => match &mut star {
                Some((place, taken)) => {
                    *taken += 1;
                    (part, at) = (*place + 1, *taken);
                }
                None => return false,
            },
        }
    }
    parts.iter().skip(part).all(|part| *part == Glob::Any)
}
