//! The memory plan as a picture: which tensor lives where in the arena, and when.
//!
//! The artifact holds offsets, not lifetimes; those follow from the program. The arena is cut at every address at
//! which a tensor begins or ends. Such a piece of memory is alive from an instruction that writes it to the last
//! one that reads it before it is written anew.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_artifact::{Artifact, Tensor, TensorId};
use serde::Serialize;

use crate::output::{grouped, table};
use crate::program::{InstructionReport, arena_range};

/// Widest picture, in instructions; in longer programs a column stands for several.
const MAX_COLUMNS: usize = 72;
/// Most rows; in arenas with more pieces a row stands for several.
const MAX_ROWS: usize = 32;
/// Largest plan that is worked out: the product of its pieces of memory and of the program's operands. Real models
/// stay a thousandfold below; a hostile file must not take for ever.
const MAX_EFFORT: usize = 10_000_000;
/// Letters for tensors.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The plan of an arena.
pub(crate) struct Plan {
    steps: usize,
    state_len: usize,
    /// Pieces of memory, ascending, with who lives in them.
    pieces: Vec<Piece>,
}

struct Piece {
    start: usize,
    end: usize,
    lives: Vec<Life>,
}

/// From the first to the last instruction, and the tensor that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    tensor: TensorId,
    first: usize,
    last: usize,
    /// Whether anything has read it yet.
    read: bool,
}

/// One tensor's stay in the arena.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stay {
    pub(crate) tensor: TensorId,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    /// First and last instruction at which it is alive.
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Plan {
    /// Computes lifetimes. `None` when the program has instructions that this version does not know, or is absurdly
    /// large.
    pub(crate) fn of(artifact: &Artifact<'_>, instructions: &[InstructionReport]) -> Option<Self> {
        let steps = instructions.len();
        // (instruction, 0 for reads and 1 for writes, tensor): reads of an instruction come before its writes.
        let mut events: Vec<(usize, u8, TensorId)> = Vec::new();
        for instruction in instructions {
            let operands = instruction.operands.as_ref()?;
            events.extend(operands.reads.iter().map(|&id| (instruction.index, 0, id)));
            events.extend(operands.writes.iter().map(|&id| (instruction.index, 1, id)));
        }
        let (inputs, outputs) = interface(artifact);
        let entering = inputs.into_iter().map(|id| (0, 1, id));
        let leaving = outputs.into_iter().map(|id| (steps.saturating_sub(1), 0, id));
        let events: Vec<_> = entering.chain(events).chain(leaving).collect();

        let state_len = artifact.state_len();
        let cuts: BTreeSet<usize> = events
            .iter()
            .filter_map(|&(_, _, id)| arena_range(artifact, id))
            .flat_map(|(a, b)| [a, b])
            .collect();
        let cuts: Vec<usize> = cuts
            .into_iter()
            .chain([state_len, artifact.arena_len()])
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut pieces: Vec<Piece> = cuts
            .windows(2)
            .filter(|cut| cut[0] >= state_len)
            .map(|cut| Piece { start: cut[0], end: cut[1], lives: Vec::new() })
            .collect();
        if pieces.len().saturating_mul(events.len()) > MAX_EFFORT {
            return None;
        }
        for (step, write, tensor) in events {
            let Some((start, end)) = arena_range(artifact, tensor) else { continue };
            let first = pieces.partition_point(|piece| piece.start < start);
            for piece in pieces[first..].iter_mut().take_while(|piece| piece.end <= end) {
                piece.touch(step, write == 1, tensor);
            }
        }
        Some(Plan { steps, state_len, pieces })
    }

    /// Every tensor's stay, in the order in which they begin.
    pub(crate) fn stays(&self, artifact: &Artifact<'_>) -> Vec<Stay> {
        let mut stays: BTreeMap<(usize, TensorId), Stay> = BTreeMap::new();
        for life in self.pieces.iter().flat_map(|piece| &piece.lives) {
            let Some((start, end)) = arena_range(artifact, life.tensor) else { continue };
            let Life { tensor, first, last, .. } = *life;
            let stay = Stay { tensor, offset: start, bytes: end - start, first, last };
            let known = stays.entry((first, tensor)).or_insert(stay);
            known.last = known.last.max(last);
        }
        stays.into_values().collect()
    }

    /// The picture: address ranges downwards, instructions to the right, one letter per tensor.
    pub(crate) fn picture(&self, artifact: &Artifact<'_>) -> String {
        let stays = self.stays(artifact);
        let mut letters: BTreeMap<TensorId, char> = BTreeMap::new();
        for stay in &stays {
            let next = char::from(LETTERS[letters.len() % LETTERS.len()]);
            letters.entry(stay.tensor).or_insert(next);
        }
        self.map(&letters) + &legend(artifact, &stays, &letters)
    }

    /// The picture itself.
    fn map(&self, letters: &BTreeMap<TensorId, char>) -> String {
        let per_column = self.steps.div_ceil(MAX_COLUMNS).max(1);
        let columns = self.steps.div_ceil(per_column);
        let mut rows: Vec<(usize, usize, String)> = Vec::new();
        if self.state_len > 0 {
            rows.push((0, self.state_len, "#".repeat(columns) + "  state"));
        }
        for piece in &self.pieces {
            let cells = (0..columns).map(|column| {
                let (first, end) = (column * per_column, (column + 1) * per_column);
                let alive = piece.lives.iter().find(|life| life.first < end && first <= life.last);
                alive.and_then(|life| letters.get(&life.tensor)).copied().unwrap_or('.')
            });
            let cells: String = cells.collect();
            match rows.last_mut() {
                Some((_, end, last)) if *last == cells => *end = piece.end,
                _ => rows.push((piece.start, piece.end, cells)),
            }
        }
        let all = rows.len();
        keep_largest(&mut rows, MAX_ROWS, |(start, end, _)| end - start);
        let number = |address: usize| grouped(address as u64);
        let width = rows.last().map_or(4, |(_, end, _)| number(*end).len().max(4));
        let scale = if per_column == 1 { String::new() } else { format!(", {per_column} per column") };
        let last = self.steps.saturating_sub(1);
        let mut text = format!("  {:>width$}    {:>width$}  instructions 0 to {last}{scale}\n", "from", "to");
        for (start, end, cells) in &rows {
            text += &format!("  {:>width$} .. {:>width$}  {cells}\n", number(*start), number(*end));
        }
        text + &more(all - rows.len(), "ranges")
    }
}

/// What the letters stand for.
fn legend(artifact: &Artifact<'_>, stays: &[Stay], letters: &BTreeMap<TensorId, char>) -> String {
    let mut shown = stays.to_vec();
    keep_largest(&mut shown, MAX_ROWS, |stay| stay.bytes);
    let rows = shown.iter().map(|stay| {
        let tensor = artifact.tensor(stay.tensor).unwrap_or_default();
        vec![
            letters.get(&stay.tensor).copied().unwrap_or('?').to_string(),
            format!("{}{:?}", tensor.dtype, tensor.shape()),
            grouped(stay.bytes as u64),
            grouped(stay.offset as u64),
            stay.first.to_string(),
            stay.last.to_string(),
        ]
    });
    let table = table(&["", "tensor", "bytes", "offset", "first", "last"], rows, 2);
    table + &more(stays.len() - shown.len(), "tensors")
}

/// Removes all but the largest items; their order stays.
fn keep_largest<T>(items: &mut Vec<T>, keep: usize, size: impl Fn(&T) -> usize) {
    let mut sizes: Vec<usize> = items.iter().map(&size).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    if let Some(&limit) = sizes.get(keep) {
        let mut ties = sizes[..keep].iter().filter(|&&size| size == limit).count();
        items.retain(|item| {
            let tie = size(item) == limit && ties > 0;
            ties -= usize::from(tie);
            tie || size(item) > limit
        });
    }
}

/// A line that says what is not shown.
fn more(hidden: usize, what: &str) -> String {
    if hidden == 0 { String::new() } else { format!("  and {hidden} smaller {what}\n") }
}

impl Piece {
    /// Notes that an instruction reads or writes this piece.
    fn touch(&mut self, step: usize, write: bool, tensor: TensorId) {
        match self.lives.last_mut() {
            Some(life) if !write => {
                life.last = step;
                life.read = true;
            }
            // A result that several instructions put together is one stay.
            Some(life) if life.tensor == tensor && !life.read => life.last = step,
            _ => self.lives.push(Life { tensor, first: step, last: step, read: !write }),
        }
    }
}

/// Indices of the inputs and of the outputs.
fn interface(artifact: &Artifact<'_>) -> (Vec<TensorId>, Vec<TensorId>) {
    let count = artifact.tensor_count() as TensorId;
    let find = |tensor: Tensor| (0..count).find(|&id| artifact.tensor(id) == Some(tensor));
    (artifact.inputs().filter_map(find).collect(), artifact.outputs().filter_map(find).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(touches: &[(usize, bool, TensorId)]) -> Vec<(TensorId, usize, usize)> {
        let mut piece = Piece { start: 0, end: 1, lives: Vec::new() };
        touches.iter().for_each(|&(step, write, tensor)| piece.touch(step, write, tensor));
        piece.lives.iter().map(|life| (life.tensor, life.first, life.last)).collect()
    }

    #[test]
    fn a_life_lasts_from_the_first_write_to_the_last_read() {
        assert_eq!(piece(&[(0, true, 7), (1, false, 7), (4, false, 7)]), [(7, 0, 4)]);
    }

    #[test]
    fn what_is_put_together_by_several_instructions_is_one_life() {
        assert_eq!(piece(&[(2, true, 7), (3, true, 7), (5, false, 7), (6, true, 7)]), [(7, 2, 5), (7, 6, 6)]);
    }

    #[test]
    fn a_result_in_the_place_of_its_operand_begins_where_that_one_ends() {
        assert_eq!(
            piece(&[(0, true, 1), (3, false, 1), (3, true, 2), (9, false, 2)]),
            [(1, 0, 3), (2, 3, 9)]
        );
    }

    #[test]
    fn the_largest_items_stay_in_order() {
        let mut items = vec![3, 1, 4, 1, 5, 3, 3];
        keep_largest(&mut items, 4, |&item| item);
        assert_eq!(items, [3, 4, 5, 3]);
    }

    #[test]
    fn a_view_prolongs_the_life_of_what_it_shows() {
        assert_eq!(piece(&[(0, true, 1), (3, false, 2)]), [(1, 0, 3)]);
    }
}
