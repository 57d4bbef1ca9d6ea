//! Tables for people.

use std::path::PathBuf;
use std::{env, fs};

use comfy_table::{CellAlignment, Table, presets};

use crate::reference::repository;

/// A table with a title row; numbers are aligned to the right.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let number = |row: &[String; N]| row[index].starts_with(|c: char| c.is_ascii_digit());
        if index > 0 && rows.iter().any(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Prints a report and keeps it.
pub fn publish(name: &str, text: &str) {
    println!("{text}");
    keep(name, text);
}

/// Writes a report to `target/reports/<name>.txt`, because test runners hide what a passing test prints.
pub fn keep(name: &str, text: &str) {
    let folder = env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let folder = folder.join("reports");
    let written =
        fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(format!("{name}.txt")), text));
    if let Err(error) = written {
        println!("(the report is not kept: {error})");
    }
}
