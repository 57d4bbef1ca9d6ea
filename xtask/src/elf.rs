//! What a linked firmware image takes of the device's memory.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::{File, Object, ObjectSection, ObjectSymbol, SectionFlags, SectionKind, SymbolKind, elf};

/// The function that every panic ends in.
const PANIC_HANDLER: &str = "rust_begin_unwind";

/// Bytes of a firmware image per kind of memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// Bytes per section that lies in flash, with the start values of variables.
    pub(crate) flash: BTreeMap<String, u64>,
    /// Bytes of statically allocated RAM.
    pub(crate) ram: u64,
    /// Sizes of functions and constants in flash, largest first, under their readable names.
    pub(crate) symbols: Vec<(String, u64)>,
    /// Whether any code can panic: otherwise the linker has dropped the panic handler.
    pub(crate) can_panic: bool,
}

impl Image {
    /// Reads a linked image.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = File::parse(&*bytes).with_context(|| format!("{} is no linked image", path.display()))?;
        let mut image = Self::default();
        for section in file.sections() {
            let SectionFlags::Elf { sh_flags } = section.flags() else { bail!("not an ELF image") };
            if sh_flags & u64::from(elf::SHF_ALLOC) == 0 || section.size() == 0 {
                continue;
            }
            if sh_flags & u64::from(elf::SHF_WRITE) != 0 {
                image.ram += section.size();
            }
            if section.kind() != SectionKind::UninitializedData {
                *image.flash.entry(section.name()?.to_owned()).or_default() += section.size();
            }
        }
        for symbol in file.symbols() {
            let name = symbol.name()?;
            image.can_panic |= name.contains(PANIC_HANDLER);
            let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
            let in_flash = section.is_some_and(|s| s.kind() != SectionKind::UninitializedData);
            if in_flash && matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data) && symbol.size() > 0 {
                image.symbols.push((format!("{:#}", rustc_demangle::demangle(name)), symbol.size()));
            }
        }
        image.symbols.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Ok(image)
    }

    /// All bytes in flash.
    pub(crate) fn flash_bytes(&self) -> u64 {
        self.flash.values().sum()
    }
}

/// The crate that a symbol comes from, as far as its name tells.
pub(crate) fn crate_of(symbol: &str) -> &str {
    let path = symbol.trim_start_matches(['<', '&', '[', '(', '*']);
    let path = path.strip_prefix("mut ").unwrap_or(path);
    match path.split_once("::") {
        Some((name, _)) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => name,
        _ => "(other)",
    }
}

#[cfg(test)]
mod tests {
    use super::crate_of;

    #[test]
    fn the_crate_of_a_symbol_is_its_first_path_segment() {
        assert_eq!(crate_of("dunlin_kernels::conv::conv2d_i8"), "dunlin_kernels");
        assert_eq!(crate_of("<dunlin_runtime::Session as core::ops::Drop>::drop"), "dunlin_runtime");
        assert_eq!(crate_of("<[u8]>::get"), "(other)");
        assert_eq!(crate_of("__aeabi_memcpy"), "(other)");
    }
}
