//! Shows what takes the flash of a firmware image.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};

use crate::elf::{Image, crate_of};
use crate::firmware::{self, CPUS};
use crate::models::Compiler;
use crate::project::Project;
use crate::setup::{Need, Tools};

/// Longer names of functions are cut.
const LONGEST_NAME: usize = 100;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these models (file names without their ending).
    #[arg(long, value_delimiter = ',')]
    model: Vec<String>,
    /// The CPU to build for: m0plus, m4, m7, m33, m55.
    #[arg(long, default_value = "m4", value_parser = firmware::parse_cpu)]
    cpu: &'static str,
    /// How many of the largest functions and constants to list.
    #[arg(long, default_value_t = 20)]
    symbols: usize,
}

pub(crate) fn run(project: &Project, tools: &mut Tools, options: &Options) -> Result<()> {
    tools.need(Need::BareMetal)?;
    let compiler = Compiler::new(project)?;
    for model in firmware::chosen_models(project, &options.model)? {
        let artifact = compiler.compile(&model)?;
        for cpu in CPUS.iter().filter(|cpu| cpu.name == options.cpu) {
            let image = Image::read(&firmware::build(project, &artifact.file, cpu, "")?)?;
            println!("{} on {}", model.name, cpu.name);
            println!("{}", sections(&image, artifact.bytes));
            println!("{}", crates(&image));
            println!("{}\n", symbols(&image, options.symbols));
        }
    }
    Ok(())
}

fn sections(image: &Image, artifact_bytes: u64) -> Table {
    let mut table = table(["section", "bytes"]);
    for (name, bytes) in &image.flash {
        table.add_row([name.clone(), bytes.to_string()]);
    }
    let flash = image.flash_bytes();
    table.add_row(["flash".into(), flash.to_string()]);
    table.add_row(["of it the artifact".into(), artifact_bytes.to_string()]);
    table.add_row(["flash without the artifact".into(), (flash - artifact_bytes).to_string()]);
    table.add_row(["static RAM with the arena".into(), image.ram.to_string()]);
    table
}

fn crates(image: &Image) -> Table {
    let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, bytes) in code_and_constants(image) {
        *sizes.entry(crate_of(name)).or_default() += bytes;
    }
    let mut sizes: Vec<_> = sizes.into_iter().collect();
    sizes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let mut table = table(["crate", "bytes"]);
    table.add_rows(sizes.into_iter().map(|(name, bytes)| [name.to_owned(), bytes.to_string()]));
    table
}

fn symbols(image: &Image, count: usize) -> Table {
    let mut table = table(["function or constant", "bytes"]);
    let row = |(name, bytes): (&str, u64)| {
        let short: String = name.chars().take(LONGEST_NAME).collect();
        [short, bytes.to_string()]
    };
    table.add_rows(code_and_constants(image).take(count).map(row));
    table
}

/// The symbols of an image without the artifact.
fn code_and_constants(image: &Image) -> impl Iterator<Item = (&str, u64)> {
    let symbols = image.symbols.iter().map(|(name, bytes)| (name.as_str(), *bytes));
    symbols.filter(|(name, _)| !name.contains("::model::BYTES"))
}

fn table(header: [&str; 2]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
