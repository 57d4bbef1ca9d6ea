//! The (mel) filter bank.

use crate::KernelError;

/// The tables of a filter bank with overlapping triangular filters.
///
/// Each run of frequency bins lies between the centres of two neighbouring channels. Its energy goes by `weights` to
/// the channel of its own and by `unweights` (the rest) to the next. The first run only has a next channel, so that
/// the tables of runs have one element more than there are channels.
#[derive(Clone, Copy, Debug)]
pub struct FilterBank<'a> {
    /// Weights towards the run's own channel.
    pub weights: &'a [i16],
    /// Weights towards the next channel, as many.
    pub unweights: &'a [i16],
    /// The first frequency bin of each run.
    pub frequency_starts: &'a [i16],
    /// The first weight of each run.
    pub weight_starts: &'a [i16],
    /// The number of bins of each run; none or negative: an empty run.
    pub widths: &'a [i16],
}

/// Adds the energies in `input` up to the channels in `output`.
///
/// # Errors
/// [`KernelError::Shape`] when the tables are not of `output.len() + 1` runs or a run reaches beyond the input or
/// the weights.
pub fn filter_bank(p: &FilterBank<'_>, input: &[u32], output: &mut [u64]) -> Result<(), KernelError> {
    let runs = p.widths.len();
    let fits = output.len().checked_add(1) == Some(runs)
        && p.frequency_starts.len() == runs
        && p.weight_starts.len() == runs
        && (0..runs).all(|run| p.run(run, input).is_some());
    if !fits {
        return Err(KernelError::Shape);
    }
    let (_, mut carried) = p.sums(0, input);
    for (run, out) in (1..runs).zip(output) {
        let (own, next) = p.sums(run, input);
        *out = carried.wrapping_add(own);
        carried = next;
    }
    Ok(())
}

impl<'a> FilterBank<'a> {
    /// What a run contributes to its own channel and to the next.
    #[inline(never)]
    fn sums(&self, run: usize, input: &[u32]) -> (u64, u64) {
        let (energies, weights, unweights) = self.run(run, input).unwrap_or_default();
        let part = |weight: i16, energy: u32| (i64::from(weight) as u64).wrapping_mul(u64::from(energy));
        let (mut own, mut next) = (0u64, 0u64);
        for ((&energy, &weight), &unweight) in energies.iter().zip(weights).zip(unweights) {
            own = own.wrapping_add(part(weight, energy));
            next = next.wrapping_add(part(unweight, energy));
        }
        (own, next)
    }

    /// Energies, weights and unweights of a run, unless the tables point outside of them.
    #[inline(always)]
    fn run<'i>(&self, run: usize, input: &'i [u32]) -> Option<(&'i [u32], &'a [i16], &'a [i16])> {
        let width = usize::try_from(*self.widths.get(run)?).unwrap_or(0);
        if width == 0 {
            return Some(Default::default());
        }
        let first_bin = usize::try_from(*self.frequency_starts.get(run)?).ok()?;
        let first_weight = usize::try_from(*self.weight_starts.get(run)?).ok()?;
        let weights = first_weight..first_weight.checked_add(width)?;
        Some((
            input.get(first_bin..first_bin.checked_add(width)?)?,
            self.weights.get(weights.clone())?,
            self.unweights.get(weights)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANK: FilterBank<'static> = FilterBank {
        weights: &[100, 3, 2, 5],
        unweights: &[1, 2, 4, -1],
        frequency_starts: &[1, 2, 4],
        weight_starts: &[0, 1, 3],
        widths: &[1, 2, 1],
    };

    #[test]
    fn every_run_feeds_two_channels() {
        let mut output = [0; 2];
        filter_bank(&BANK, &[1000, 1, 10, 100, u32::MAX], &mut output).unwrap();
        let last = 5 * u64::from(u32::MAX);
        assert_eq!(output, [1 + 3 * 10 + 2 * 100, 2 * 10 + 4 * 100 + last]);
    }

    #[test]
    fn empty_runs_may_point_anywhere() {
        let bank = FilterBank { widths: &[0, -5, 1], frequency_starts: &[-1, 9999, 4], ..BANK };
        let mut output = [9; 2];
        filter_bank(&bank, &[1, 1, 1, 1, 7], &mut output).unwrap();
        assert_eq!(output, [0, 35]);
    }

    #[test]
    fn refuses_tables_that_point_outside() {
        let input = [0; 5];
        let refused = [
            FilterBank { widths: &[1, 2, 2], ..BANK },
            FilterBank { frequency_starts: &[-1, 2, 4], ..BANK },
            FilterBank { weight_starts: &[0, 1, 4], ..BANK },
            FilterBank { unweights: &[1, 2, 4], ..BANK },
            FilterBank { weight_starts: &[0, 1], ..BANK },
            FilterBank { widths: &[], frequency_starts: &[], weight_starts: &[], ..BANK },
        ];
        for bank in refused {
            assert_eq!(filter_bank(&bank, &input, &mut [0; 2]), Err(KernelError::Shape), "{bank:?}");
        }
    }
}
