//! Where each buffer lies in the arena: greedy by size (Pisarchyk & Lee 2020, arXiv 2001.03288, "greedy by size"): the
//! largest buffer first, each at the lowest place where it meets no buffer that lives at the same time.

/// A buffer to place: its size in floats, and the first and last step at which it is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    pub len: usize,
    pub first: usize,
    pub last: usize,
}

/// Buffers start on 64 bytes.
const ALIGN: usize = 16;

/// The offset of each buffer, and the length of the arena, in floats.
pub(crate) fn plan_memory(buffers: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).filter(|&i| buffers[i].len > 0).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].len), buffers[i].first, i));
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(order.len()); // by offset
    let mut total = 0;
    for index in order {
        let buffer = buffers[index];
        let mut offset = 0;
        for &other in &placed {
            let Lifetime { len, first, last } = buffers[other];
            let together = first <= buffer.last && buffer.first <= last;
            if !together || offsets[other] + padded(len) <= offset {
                continue;
            }
            if offsets[other] >= offset + padded(buffer.len) {
                break;
            }
            offset = offsets[other] + padded(len);
        }
        offsets[index] = offset;
        total = total.max(offset + padded(buffer.len));
        let at = placed.partition_point(|&other| offsets[other] <= offset);
        placed.insert(at, index);
    }
    (offsets, total)
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_that_live_together_never_overlap_and_others_share() {
        // A chain: each value lives for two steps, so two places suffice.
        let chain: Vec<Lifetime> = (0..50).map(|i| Lifetime { len: 100 + i % 7, first: i, last: i + 1 }).collect();
        let (offsets, total) = plan_memory(&chain);
        for (i, a) in chain.iter().enumerate() {
            for (j, b) in chain.iter().enumerate().skip(i + 1) {
                let together = a.first <= b.last && b.first <= a.last;
                let apart = offsets[i] + a.len <= offsets[j] || offsets[j] + b.len <= offsets[i];
                assert!(!together || apart, "{i} and {j} overlap");
            }
        }
        assert!(offsets.iter().all(|o| o % ALIGN == 0));
        assert!(total <= 3 * 112, "{total} floats for two live buffers of 112");
    }
}
