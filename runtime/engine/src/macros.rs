//! The `model!` macro.

/// Embeds an artifact in the program and links only the kernels that it needs.
///
/// `model!(name, "path")` makes a module `name` with
/// - `ARTIFACT: &[u8]`, the aligned bytes in flash,
/// - `Arena`, the type of an arena of exactly the right size (`Arena::new()` is `const`),
/// - `Session<'a>`, a session that can run this model and nothing else,
/// - `FEATURES` and `COUNTERS`, the sizes of the `dunlin_monitor::Window` that monitors the model (0 without baseline),
/// - `session(&mut Arena) -> Result<Session, RunError>`.
///
/// The path is relative to the current file, or absolute, for example `concat!(env!("OUT_DIR"), "/kws.dunlin")`.
#[macro_export]
macro_rules! model {
    ($(#[$attribute:meta])* $visibility:vis $name:ident, $path:expr) => {
        $(#[$attribute])*
        #[allow(dead_code)]
        $visibility mod $name {
            static BYTES: &$crate::Aligned<[u8]> = &$crate::Aligned(*include_bytes!($path));
            const SOURCE: &[u8] = include_bytes!($path);
            const KERNELS: u128 = $crate::artifact::kernel_set(SOURCE);

            /// The artifact, aligned.
            pub static ARTIFACT: &[u8] = &BYTES.0;
            /// An arena of exactly the size that the model needs.
            pub type Arena = $crate::Arena<{ $crate::artifact::arena_len(SOURCE) }>;
            /// Features that the model's baseline monitors.
            pub const FEATURES: usize = $crate::artifact::monitored_features(SOURCE);
            /// Counters of all monitored features together.
            pub const COUNTERS: usize = $crate::artifact::monitored_counters(SOURCE);
            /// A session that links this model's kernels only.
            pub type Session<'a> = $crate::Session<'static, 'a, KERNELS>;

            /// Starts a session in `arena`.
            pub fn session(arena: &mut Arena) -> ::core::result::Result<Session<'_>, $crate::RunError> {
                // Known at compile time: what a model without a baseline does not need is not linked.
                let artifact = match FEATURES {
                    0 => $crate::Artifact::parse_unmonitored(ARTIFACT)?,
                    _ => $crate::Artifact::parse(ARTIFACT)?,
                };
                $crate::Session::new(artifact, arena.as_mut_slice())
            }
        }
    };
}
