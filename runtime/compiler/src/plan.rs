//! The arena's layout: every temporary tensor gets an offset, such that tensors that live at the same time do
//! not overlap.
//!
//! A lower bound is the largest sum of sizes that live at one step. Finding the best layout is NP-hard; the
//! models of this field are small enough that a few greedy orders and a short seeded search reach the bound on
//! nearly all of them. The plan always says how far it is from it.

/// A block of memory to place: a tensor, or several that share memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Size in bytes.
    pub size: usize,
    /// First step at which the block is live.
    pub first: usize,
    /// Last step at which it is live.
    pub last: usize,
}

/// A layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offset of every block, in the order given.
    pub offsets: Vec<usize>,
    /// End of the block that reaches furthest.
    pub peak: usize,
    /// No layout can have a smaller peak.
    pub bound: usize,
}

/// Offsets are multiples of this, which suits every element type.
pub const ALIGNMENT: usize = 8;

/// Orders tried by the search when the greedy ones miss the bound.
const SEARCH_ROUNDS: usize = 3_000;
/// The search takes time that grows with the square of the number of blocks; beyond this many it is left out.
const SEARCH_BLOCKS: usize = 400;

/// A sort key: blocks are placed by ascending keys.
type Order = fn(&Block) -> (usize, usize);

/// Places the blocks.
pub fn layout(blocks: &[Block]) -> Layout {
    let bound = live_bound(blocks);
    let mut best: Option<Layout> = None;
    let mut best_order = Vec::new();
    let orders: [Order; 4] = [
        |block| (usize::MAX - block.size, block.first),
        |block| (usize::MAX - (block.last - block.first), usize::MAX - block.size),
        |block| (block.first, usize::MAX - block.size),
        |block| (usize::MAX - block.size * (block.last - block.first + 1), block.first),
    ];
    for key in orders {
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_by_key(|&index| key(&blocks[index]));
        let candidate = place_in_order(blocks, &order, bound);
        if best.as_ref().is_none_or(|best| candidate.peak < best.peak) {
            best = Some(candidate);
            best_order = order;
        }
    }
    let mut best = best.unwrap_or(Layout { offsets: vec![], peak: 0, bound });
    if best.peak > bound && blocks.len() <= SEARCH_BLOCKS {
        search(blocks, &mut best, best_order);
    }
    best
}

/// Hill climbing over placement orders with a fixed seed: the same model always gets the same plan.
fn search(blocks: &[Block], best: &mut Layout, mut order: Vec<usize>) {
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % limit as u64) as usize
    };
    let mut current = best.peak;
    for _ in 0..SEARCH_ROUNDS {
        let mut candidate = order.clone();
        let (from, to) = (below(order.len()), below(order.len()));
        let moved = candidate.remove(from);
        candidate.insert(to, moved);
        let layout = place_in_order(blocks, &candidate, best.bound);
        if layout.peak <= current {
            current = layout.peak;
            order = candidate;
            if layout.peak < best.peak {
                *best = layout;
            }
            if best.peak == best.bound {
                return;
            }
        }
    }
}

/// Puts each block into the lowest gap that it fits into, in the given order.
fn place_in_order(blocks: &[Block], order: &[usize], bound: usize) -> Layout {
    let mut offsets = vec![0; blocks.len()];
    // Placed blocks by ascending offset.
    let mut placed: Vec<usize> = Vec::with_capacity(blocks.len());
    let mut peak = 0;
    for &index in order {
        let block = &blocks[index];
        let mut offset = 0usize;
        for &other in &placed {
            let (size, start) = (blocks[other].size, offsets[other]);
            if !overlaps(block, &blocks[other]) || size == 0 {
                continue;
            }
            if start >= offset + block.size {
                break;
            }
            offset = offset.max((start + size).next_multiple_of(ALIGNMENT));
        }
        offsets[index] = offset;
        peak = peak.max(offset + block.size);
        let at = placed.partition_point(|&other| offsets[other] <= offset);
        placed.insert(at, index);
    }
    Layout { offsets, peak, bound }
}

fn overlaps(a: &Block, b: &Block) -> bool {
    a.first <= b.last && b.first <= a.last
}

/// The largest sum of sizes live at one step.
fn live_bound(blocks: &[Block]) -> usize {
    let mut ends: Vec<usize> = blocks.iter().map(|block| block.first).collect();
    ends.sort_unstable();
    ends.dedup();
    let live_at = |step: usize| -> usize {
        blocks.iter().filter(|b| b.first <= step && step <= b.last).map(|b| b.size).sum()
    };
    // The sum can only reach a new height where a block begins.
    ends.into_iter().map(live_at).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(size: usize, first: usize, last: usize) -> Block {
        Block { size, first, last }
    }

    #[test]
    fn a_chain_reuses_two_buffers() {
        let plan = layout(&[block(64, 0, 1), block(128, 1, 2), block(64, 2, 3)]);
        assert_eq!((plan.peak, plan.bound), (192, 192));
    }

    #[test]
    fn reaches_the_bound_where_placing_by_size_alone_does_not() {
        // The mobile net's middle: a small block between two large ones fragments the arena.
        let blocks = [
            block(27648, 0, 1),
            block(18432, 1, 2),
            block(36864, 2, 3),
            block(9216, 3, 4),
            block(18432, 4, 5),
        ];
        let plan = layout(&blocks);
        assert_eq!(plan.peak, plan.bound);
    }

    #[test]
    fn no_blocks_need_no_memory() {
        assert_eq!(layout(&[]), Layout { offsets: vec![], peak: 0, bound: 0 });
    }

    proptest! {
        #[test]
        fn blocks_that_live_together_never_overlap(
            sizes in proptest::collection::vec((1usize..500, 0usize..20, 0usize..6), 1..25)
        ) {
            let blocks: Vec<_> = sizes.iter().map(|&(s, first, len)| block(s, first, first + len)).collect();
            let plan = layout(&blocks);
            prop_assert!(plan.peak >= plan.bound);
            for a in 0..blocks.len() {
                prop_assert!(plan.offsets[a] + blocks[a].size <= plan.peak);
                prop_assert!(plan.offsets[a].is_multiple_of(ALIGNMENT));
                for b in 0..a {
                    let apart = plan.offsets[a] + blocks[a].size <= plan.offsets[b]
                        || plan.offsets[b] + blocks[b].size <= plan.offsets[a];
                    prop_assert!(apart || !overlaps(&blocks[a], &blocks[b]));
                }
            }
        }
    }
}
