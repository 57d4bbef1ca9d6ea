//! Edges of the bins of a numeric feature.
//!
//! Edges lie at quantiles of the reference, so that every bin holds a similar share, with more of them in both tails
//! and a few beyond the range. A value that occurs often (a zero, a clipped reading) gets a bin of its own: without
//! it the atom would share a bin with its neighbours, and a move of mass between them would not be seen.

use dunlin_artifact::limits;

/// Quantile edges that are tried, most first, until atoms and all fit into [`limits::MAX_EDGES`].
const BASES: [usize; 5] = [32, 24, 16, 12, 8];
/// Shares of the reference at which the tails get edges.
const TAILS: [f64; 10] = [0.0005, 0.002, 0.005, 0.01, 0.02, 0.98, 0.99, 0.995, 0.998, 0.9995];
/// How far beyond the range the guard edges lie, in ranges.
const GUARDS: [f64; 2] = [0.25, 1.0];
/// Steps that the reference's range has in the fixed-point sums of real values. [`dunlin_monitor::Scale::LIMIT`]
/// leaves room for values 128 ranges away.
const STEPS: f64 = 65_536.0;

/// The values that a quantized tensor can hold: multiples of `scale`, from `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    pub(crate) scale: f32,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl Grid {
    /// The largest value of the grid that is not above `value`.
    fn floor(&self, value: f32) -> f32 {
        let steps = (f64::from(value) / f64::from(self.scale) + 1e-3).floor();
        steps as f32 * self.scale
    }

    /// The value below a value of the grid.
    fn below(&self, value: f32) -> f32 {
        ((value / self.scale).round() - 1.0) * self.scale
    }
}

/// The edges for a reference sample: ascending, at least one and at most [`limits::MAX_EDGES`]. Values that are not
/// finite are left out.
pub(crate) fn edges(sample: &[f32], grid: Option<Grid>) -> Vec<f32> {
    // Adding zero makes -0 into +0.
    let mut sorted: Vec<f32> =
        sample.iter().filter(|value| value.is_finite()).map(|value| value + 0.0).collect();
    sorted.sort_by(f32::total_cmp);
    if sorted.is_empty() {
        return vec![0.0];
    }
    let mut candidates = BASES.iter().map(|&base| edges_with(&sorted, grid, base));
    // With the smallest base all fit: 7 quantiles, 10 tails, 6 guards, and 15 atoms with two edges each.
    candidates.find(|edges| edges.len() <= limits::MAX_EDGES).expect("the smallest base fits")
}

fn edges_with(sorted: &[f32], grid: Option<Grid>, base: usize) -> Vec<f32> {
    let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
    let quantiles = (1..base).map(|part| part as f64 / base as f64).chain(TAILS);
    let mut edges: Vec<f32> = quantiles.map(|share| quantile(sorted, share)).collect();
    let width = f64::from(max) - f64::from(min);
    for guard in GUARDS {
        // The outermost guards stay even where a quantized tensor cannot reach: the first and the last bin always
        // mean "far out".
        let reachable =
            |edge: f32| guard == 1.0 || grid.is_none_or(|grid| (grid.low..grid.high).contains(&edge));
        let outside = [f64::from(min) - guard * width, f64::from(max) + guard * width];
        let finite = outside.map(|edge| edge.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32);
        edges.extend(finite.into_iter().filter(|&edge| reachable(edge)));
    }
    if let Some(grid) = grid {
        // Between two values of the grid, edges do the same wherever they lie.
        edges.iter_mut().for_each(|edge| *edge = grid.floor(*edge));
    }
    edges.extend([min, max]);
    for atom in atoms(sorted, sorted.len() / (2 * base)) {
        let below = grid.map_or_else(|| atom.next_down(), |grid| grid.below(atom));
        edges.extend([atom, below]);
    }
    edges.retain(|edge| edge.is_finite());
    edges.iter_mut().for_each(|edge| *edge += 0.0);
    edges.sort_by(f32::total_cmp);
    edges.dedup();
    edges
}

/// Values that occur more than `often` times.
fn atoms(sorted: &[f32], often: usize) -> impl Iterator<Item = f32> {
    sorted.chunk_by(|a, b| a == b).filter(move |same| same.len() > often.max(1)).map(|same| same[0])
}

/// The value below which this share of the sample lies, interpolated linearly.
fn quantile(sorted: &[f32], share: f64) -> f32 {
    let position = share * (sorted.len() - 1) as f64;
    let (low, part) = (position.floor() as usize, position.fract());
    let (a, b) = (f64::from(sorted[low]), f64::from(sorted[(low + 1).min(sorted.len() - 1)]));
    (a + (b - a) * part) as f32
}

/// Unit and zero of the fixed-point sums: the grid itself, or a power of two that divides the reference's range into
/// about 65,536 steps, around its middle.
pub(crate) fn scale(sample: &[f32], grid: Option<Grid>) -> (f32, f32) {
    if let Some(grid) = grid {
        return (grid.scale, 0.0);
    }
    let finite = || sample.iter().copied().filter(|value| value.is_finite()).map(f64::from);
    let (min, max) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if min > max {
        return (1.0, 0.0);
    }
    let extent = if max > min { max - min } else { max.abs().max(1.0) };
    let unit = (extent / STEPS).log2().ceil().exp2().max(f64::from(f32::MIN_POSITIVE));
    (unit as f32, ((min + max) / 2.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bin(edges: &[f32], value: f32) -> usize {
        edges.partition_point(|edge| *edge < value)
    }

    /// What the reference procedure gives (NumPy: quantiles, tails, guards, unique).
    #[test]
    fn edges_of_a_ramp() {
        let sample: Vec<f32> = (0..=10_000).map(|i| i as f32).collect();
        let edges = edges(&sample, None);
        assert_eq!(edges.len(), 31 + 10 + 6);
        assert_eq!(edges[..6], [-10_000.0, -2_500.0, 0.0, 5.0, 20.0, 50.0]);
        assert_eq!(edges[edges.len() - 3..], [10_000.0, 12_500.0, 20_000.0]);
        assert!(edges.contains(&312.5) && edges.contains(&5_000.0));
    }

    #[test]
    fn a_frequent_value_has_a_bin_of_its_own() {
        let mut sample = vec![0.0; 500];
        sample.extend((1..=500).map(|i| i as f32 / 100.0));
        let edges = edges(&sample, None);
        let at_zero = bin(&edges, 0.0);
        let neighbours = [f32::from_bits(1), -f32::from_bits(1)];
        assert!(neighbours.iter().all(|value| bin(&edges, *value) != at_zero), "{edges:?}");
    }

    #[test]
    fn a_constant_has_three_bins() {
        assert_eq!(edges(&[2.5; 100], None), [2.5f32.next_down(), 2.5]);
        let grid = Grid { scale: 0.5, low: -64.0, high: 63.5 };
        assert_eq!(edges(&[2.5; 100], Some(grid)), [2.0, 2.5]);
        assert_eq!(edges(&[f32::NAN, f32::INFINITY], None), [0.0]);
        assert_eq!(scale(&[2.5; 3], None), ((2.5f32 / 65_536.0).log2().ceil().exp2(), 2.5));
        assert_eq!(scale(&[f32::NAN], None), (1.0, 0.0));
    }

    #[test]
    fn values_next_to_each_other_on_a_grid_share_edges() {
        let grid = Grid { scale: 0.25, low: -32.0, high: 31.75 };
        let sample: Vec<f32> = (0..1000).map(|i| (i % 20) as f32 * 0.25).collect();
        let edges = edges(&sample, Some(grid));
        // Every value has a bin of its own: an edge each, and one below the smallest; two guards on either side.
        assert_eq!(edges.len(), 20 + 1 + 4);
    }

    proptest! {
        #[test]
        fn edges_are_valid_whatever_the_sample(
            sample in proptest::collection::vec(prop_oneof![any::<f32>(), -3.0f32..3.0, Just(0.0), Just(-0.0)], 0..300),
            repeat in 1usize..8,
        ) {
            let sample: Vec<f32> = sample.iter().copied().cycle().take(sample.len() * repeat).collect();
            let edges = edges(&sample, None);
            prop_assert!((1..=limits::MAX_EDGES).contains(&edges.len()));
            prop_assert!(edges.is_sorted_by(|a, b| a < b) && edges.iter().all(|edge| edge.is_finite()));
            let (unit, zero) = scale(&sample, None);
            prop_assert!(unit.is_normal() && unit > 0.0 && zero.is_finite());
        }

        #[test]
        fn so_they_are_on_a_grid(
            sample in proptest::collection::vec(any::<i8>(), 1..2000), scale in 1e-6f32..1e3, zero_point in -128i32..128,
        ) {
            let real = |stored: i32| (stored - zero_point) as f32 * scale;
            let grid = Grid { scale, low: real(-128), high: real(127) };
            let sample: Vec<f32> = sample.iter().map(|&stored| real(stored.into())).collect();
            let edges = edges(&sample, Some(grid));
            prop_assert!((1..=limits::MAX_EDGES).contains(&edges.len()));
            prop_assert!(edges.is_sorted_by(|a, b| a < b));
            // Apart from the outermost, edges are values of the grid, so that rounding cannot move a value across one.
            // A sample of one value has a single edge.
            for edge in edges.get(1..edges.len() - 1).unwrap_or_default() {
                let stored = (edge / scale).round() as i32;
                prop_assert_eq!(stored as f32 * scale, *edge);
            }
            // A frequent value is alone in its bin.
            let mut sorted = sample.clone();
            sorted.sort_by(f32::total_cmp);
            for atom in atoms(&sorted, sorted.len() / 16) {
                let others = sorted.iter().filter(|value| **value != atom);
                prop_assert!(others.map(|value| bin(&edges, *value)).all(|other| other != bin(&edges, atom)));
            }
        }
    }
}
