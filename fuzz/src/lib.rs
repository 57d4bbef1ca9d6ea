//! What the fuzz targets share.

use dunlin_compiler::AlignedBytes;
use dunlin_monitor::{Monitor, Schedule};
use dunlin_runtime::artifact::limits;
use dunlin_runtime::{Artifact, Mismatch, RunError, Session, verify_golden};

/// An artifact that asks for a larger arena is not run: it is valid, but would only test the machine's memory.
const MOST_ARENA: usize = 1 << 20;
/// An artifact that declares more work, over all its golden vectors, is not run: it would only take long.
const MOST_WORK: u64 = 1 << 26;

/// Reads everything that an artifact says about itself.
pub fn read_all(artifact: &Artifact) {
    let _ = artifact.verify_digest();
    let _ = artifact.manifest();
    let instructions = artifact.program().map(|instruction| instruction.body.len()).sum::<usize>();
    let constants = (0..artifact.tensor_count())
        .filter_map(|id| artifact.tensor(id.try_into().ok()?))
        .map(|tensor| artifact.constant(&tensor).len())
        .sum::<usize>();
    let states = artifact.states().count();
    let counted = artifact.baseline().map_or(0, |baseline| {
        let features: Vec<_> = baseline.features().collect();
        assert_eq!(features.len(), baseline.feature_count(), "every feature was checked");
        features.iter().map(|feature| feature.bins.counts().iter().map(u64::from).sum::<u64>()).sum()
    });
    std::hint::black_box((instructions, constants, states, counted));
}

/// Runs an artifact twice in a row, and its golden vectors; `None` when that would take too much memory or time.
pub fn run_all(artifact: Artifact) -> Option<Result<Result<usize, Mismatch>, RunError>> {
    let runs = artifact.golden().map(|golden| u64::from(golden.steps)).sum::<u64>() + 2;
    if artifact.arena_len() > MOST_ARENA
        || artifact.work().saturating_add(1024).saturating_mul(runs) > MOST_WORK
    {
        return None;
    }
    Some(run(artifact, AlignedBytes::zeroed(artifact.arena_len()).as_mut_slice()))
}

fn run(artifact: Artifact, arena: &mut [u8]) -> Result<Result<usize, Mismatch>, RunError> {
    let mut session: Session = Session::new(artifact, arena)?;
    let monitor = Monitor::<'_, { limits::MAX_FEATURES }, { limits::MAX_COUNTERS }>::new(
        artifact,
        Schedule::default(),
        0,
    );
    let mut monitor = Box::new(monitor.expect("a baseline is within the format's limits"));
    for _ in 0..2 {
        for input in 0..artifact.inputs().len() {
            monitor.observe_input(input, session.input_bytes_mut(input)?);
        }
        session.run()?;
        monitor.completed(0);
        for output in 0..artifact.outputs().len() {
            monitor.observe_output(output, session.output_bytes(output)?);
        }
    }
    assert_eq!(monitor.close(1, 1).inferences(), 2);
    verify_golden(&mut session)
}
