//! Tests of the whole path from messages to statistics, on SQLite and, where there is one, on PostgreSQL.

mod aggregate;
mod database;
mod devices;
mod http;
mod simulation;
mod store;
