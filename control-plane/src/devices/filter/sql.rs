//! A filter's answer for all devices: a condition for the database.

use super::super::version;
use super::ast::{CompareOp, Field, Filter, Literal, sql_pattern};
use crate::db::Dialect;

/// A condition over the table `devices`, with its values apart.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlFilter {
    /// The condition, in parentheses. Its placeholders continue the numbers of [`SqlContext::bound`].
    pub sql: String,
    /// The values of the placeholders, in order.
    pub values: Vec<SqlValue>,
}

/// A value to bind.
#[derive(Clone, Debug, PartialEq)]
pub enum SqlValue {
    /// A text.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A number.
    Number(f64),
}

/// What a condition depends on besides the filter.
#[derive(Clone, Copy, Debug)]
pub struct SqlContext {
    /// The database that will run it; patterns are written in two ways.
    pub dialect: Dialect,
    /// Now, in microseconds since 1970 UTC.
    pub now_us: i64,
    /// From when on a device must have been seen to count as connected, where connections cannot be observed
    /// (external broker); `None`: connections are in the table `device_connections`.
    pub seen_is_connected_us: Option<i64>,
    /// Placeholders that the statement has before this condition.
    pub bound: usize,
}

impl Filter {
    /// The condition that selects the devices that this filter fits.
    pub fn to_sql(&self, context: &SqlContext) -> SqlFilter {
        let mut writer = Writer { context: *context, sql: String::new(), values: Vec::new() };
        writer.filter(self);
        SqlFilter { sql: writer.sql, values: writer.values }
    }
}

/// Where a field's value is in the database.
struct Column<'a> {
    /// The child table and its key; `None`: the column is one of `devices`.
    child: Option<(&'static str, &'static str, &'a str)>,
    name: &'static str,
}

struct Writer {
    context: SqlContext,
    sql: String,
    values: Vec<SqlValue>,
}

impl Writer {
    fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    fn bind(&mut self, value: SqlValue) {
        self.values.push(value);
        let number = self.context.bound + self.values.len();
        self.sql.push('$');
        self.sql.push_str(&number.to_string());
    }

    fn text(&mut self, text: &str) {
        self.bind(SqlValue::Text(text.to_owned()));
    }

    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::And(parts) => self.joined(parts, " and "),
            Filter::Or(parts) => self.joined(parts, " or "),
            Filter::Not(inner) => {
                self.push("(not ");
                self.filter(inner);
                self.push(")");
            }
            Filter::Compare(field, CompareOp::Ne, value) => {
                self.push("(not ");
                self.compare(field, CompareOp::Eq, value);
                self.push(")");
            }
            Filter::Compare(field, op, value) => self.compare(field, *op, value),
            Filter::In(field, values) => {
                self.push("(");
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        self.push(" or ");
                    }
                    self.compare(field, CompareOp::Eq, value);
                }
                self.push(")");
            }
            Filter::Matches(field, pattern) => {
                let column = match field {
                    Field::Running(_) | Field::Desired(_) => column(field, "digest"),
                    _ => column(field, "value"),
                };
                let (operator, end) = match self.context.dialect {
                    Dialect::Sqlite => (" glob ", ""),
                    Dialect::Postgres => (" like ", " escape '\\'"),
                };
                let pattern = sql_pattern(pattern, self.context.dialect);
                self.condition(&column, |writer, name| {
                    writer.push(name);
                    writer.push(operator);
                    writer.text(&pattern);
                    writer.push(end);
                });
            }
            Filter::Has(field) => self.has(field),
            Filter::Flag(field) => self.flag(field),
        }
    }

    fn joined(&mut self, parts: &[Filter], word: &str) {
        self.push("(");
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.push(word);
            }
            self.filter(part);
        }
        self.push(")");
    }

    /// A condition that is false, not unknown, when the device has no such value: `not` must turn it into true.
    fn condition(&mut self, column: &Column<'_>, write: impl FnOnce(&mut Self, &str)) {
        match column.child {
            Some((table, key_column, key)) => {
                self.push(&format!("exists (select 1 from {table} c where c.device = devices.id"));
                if !key_column.is_empty() {
                    self.push(&format!(" and c.{key_column} = "));
                    self.text(key);
                }
                self.push(" and ");
                write(self, &format!("c.{}", column.name));
                self.push(")");
            }
            None => {
                let name = format!("devices.{}", column.name);
                self.push(&format!("({name} is not null and "));
                write(self, &name);
                self.push(")");
            }
        }
    }

    fn compare(&mut self, field: &Field, op: CompareOp, value: &Literal) {
        let sign = match op {
            CompareOp::Eq => " = ",
            CompareOp::Ne => " <> ",
            CompareOp::Lt => " < ",
            CompareOp::Le => " <= ",
            CompareOp::Gt => " > ",
            CompareOp::Ge => " >= ",
        };
        let (name, value) = match (field, value) {
            (Field::Running(_) | Field::Desired(_), Literal::Text(text)) => {
                ("digest", SqlValue::Text(text.clone()))
            }
            (Field::Running(_) | Field::Desired(_), Literal::Number(number)) => {
                ("version", SqlValue::Number(*number))
            }
            (Field::AgentVersion, Literal::Text(text)) if op.is_order() => match version::order(text) {
                Some(order) => ("agent_order", SqlValue::Integer(order)),
                // The parser lets no such text through.
                None => return self.push("(1 = 0)"),
            },
            (_, Literal::Text(text)) => ("value", SqlValue::Text(text.clone())),
            (_, Literal::Number(number)) => ("number", SqlValue::Number(*number)),
            (_, Literal::Time(time)) => ("value", SqlValue::Integer(time.at_us(self.context.now_us))),
            (_, Literal::Bool(expected)) => {
                if !expected {
                    self.push("(not ");
                }
                self.flag(field);
                if !expected {
                    self.push(")");
                }
                return;
            }
        };
        self.condition(&column(field, name), |writer, name| {
            writer.push(name);
            writer.push(sign);
            writer.bind(value);
        });
    }

    fn has(&mut self, field: &Field) {
        match field {
            Field::Blocked | Field::Connected => self.push("(1 = 1)"),
            Field::Running(_) | Field::Desired(_) => {
                self.condition(&column(field, "digest"), |writer, name| {
                    writer.push(&format!("{name} is not null"))
                });
            }
            _ => self.condition(&column(field, "value"), |writer, name| {
                writer.push(&format!("{name} is not null"));
            }),
        }
    }

    fn flag(&mut self, field: &Field) {
        match (field, self.context.seen_is_connected_us) {
            (Field::Connected, Some(since)) => {
                self.condition(&column(&Field::LastSeen, "value"), |writer, name| {
                    writer.push(&format!("{name} >= "));
                    writer.bind(SqlValue::Integer(since));
                });
            }
            (Field::Connected, None) => {
                self.push(
                    "exists (select 1 from device_connections c join device_endpoints e on e.process = c.process \
                     where c.device = devices.id and e.expires_us > ",
                );
                self.bind(SqlValue::Integer(self.context.now_us));
                self.push(")");
            }
            // The parser makes a flag of no other field.
            _ => self.push("(devices.blocked_us is not null)"),
        }
    }
}

/// Where the field is; `name` chooses the column in child tables with several: `value` is the one that is a text or
/// a time.
fn column<'a>(field: &'a Field, name: &'static str) -> Column<'a> {
    let own = |name| Column { child: None, name };
    let child = |table, key_column, key, name| Column { child: Some((table, key_column, key)), name };
    match field {
        Field::Id => own("id"),
        Field::Fleet => own("fleet"),
        Field::Hardware => own("hardware"),
        Field::AgentVersion if name == "agent_order" => own("agent_order"),
        Field::AgentVersion => own("agent_version"),
        Field::Created => own("created_us"),
        Field::Blocked => own("blocked_us"),
        Field::LastSeen | Field::Connected => child("device_activity", "", "", "last_seen_us"),
        Field::Tag(key) => child("device_tags", "key", key, name),
        Field::Attribute(key) => child("device_attributes", "key", key, name),
        Field::Running(slot) => child("device_slots", "slot", slot, name),
        Field::Desired(slot) => child("device_desired", "slot", slot, name),
        Field::Status(slot) => child("device_slots", "slot", slot, "status"),
    }
}
