//! Memory given out and taken back, for modules without the standard library.

/// What every size is a multiple of, and every address: no type of wasm wants more.
pub(crate) const GRAIN: usize = 16;

/// Size classes: four for each power of two that a 32-bit address space has room for.
const CLASSES: usize = 112;

/// A memory that is the heap's alone and grows at its end.
pub(crate) trait Memory {
    /// The address where it begins.
    fn start(&self) -> usize;

    /// The address where it ends.
    fn end(&self) -> usize;

    /// Moves the end by `size` octets or more; `false` when it cannot.
    fn grow(&mut self, size: usize) -> bool;

    /// The word at an address.
    fn read(&self, address: usize) -> usize;

    /// Puts a word to an address.
    fn write(&mut self, address: usize, word: usize);
}

/// Blocks of a memory, each of a size class: up to a quarter more than was asked for.
///
/// A block that is free again waits for the next one of its class, so the heap has of each class as
/// many as there ever were at once, and never more. That suits schedulers: they build the same few
/// tables again and again. Both ways take the same few steps always.
pub(crate) struct Heap<M> {
    memory: M,
    /// The end of what was ever given out.
    top: usize,
    /// The first free block of each class, 0 for none. A free block begins with the address of the
    /// next.
    free: [usize; CLASSES],
}

impl<M: Memory> Heap<M> {
    /// All of `memory`, which is not asked for anything yet.
    pub(crate) const fn new(memory: M) -> Self {
        Self { memory, top: 0, free: [0; CLASSES] }
    }

    /// The address of a block for `size` octets; `None` when memory is short.
    pub(crate) fn allocate(&mut self, size: usize) -> Option<usize> {
        let class = Class::of(size)?;
        let first_free = self.free.get_mut(class.index)?;
        if *first_free != 0 {
            let block = *first_free;
            *first_free = self.memory.read(block);
            return Some(block);
        }
        let block = self.top.max(self.memory.start().next_multiple_of(GRAIN));
        let top = block.checked_add(class.size)?;
        let missing = top.saturating_sub(self.memory.end());
        if missing > 0 && !self.memory.grow(missing) {
            return None;
        }
        self.top = top;
        Some(block)
    }

    /// Takes back the `block` that [`allocate`](Self::allocate) gave for `size` octets.
    pub(crate) fn free(&mut self, block: usize, size: usize) {
        let Some(class) = Class::of(size) else { return };
        let Some(first_free) = self.free.get_mut(class.index) else { return };
        self.memory.write(block, *first_free);
        *first_free = block;
    }
}

/// The class of a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class {
    index: usize,
    /// What its blocks have.
    size: usize,
}

impl Class {
    /// The smallest class that `size` octets fit into: from one power of two to the next there are
    /// four, a quarter of the way each.
    fn of(size: usize) -> Option<Self> {
        let power = size.checked_next_power_of_two()?.max(GRAIN);
        let step = (power / 8).max(GRAIN);
        let steps = size.max(1).div_ceil(step);
        let powers = (power / GRAIN).ilog2() as usize;
        Some(Self { index: powers * 4 + (steps - 1) % 4, size: steps * step })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    /// Where the memory begins: at no multiple of the grain.
    const START: usize = 1000;
    const WORD: usize = size_of::<usize>();

    struct Words {
        words: Vec<usize>,
        octets_max: usize,
    }

    impl Memory for Words {
        fn start(&self) -> usize {
            START
        }

        fn end(&self) -> usize {
            START + self.words.len() * WORD
        }

        fn grow(&mut self, size: usize) -> bool {
            let words = self.words.len() + size.div_ceil(WORD);
            let fits = words * WORD <= self.octets_max;
            if fits {
                self.words.resize(words, 0);
            }
            fits
        }

        fn read(&self, address: usize) -> usize {
            self.words[(address - START) / WORD]
        }

        fn write(&mut self, address: usize, word: usize) {
            self.words[(address - START) / WORD] = word;
        }
    }

    fn heap(octets_max: usize) -> Heap<Words> {
        Heap::new(Words { words: vec![], octets_max })
    }

    #[test]
    fn classes_are_a_quarter_of_a_power_of_two_apart() {
        let mut sizes: Vec<_> = (1..=1024).map(|size| Class::of(size).unwrap().size).collect();
        sizes.dedup();
        let expected = [
            16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768,
            896, 1024,
        ];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn sizes_share_a_class_only_if_its_blocks_suit_them() {
        let mut last = Class::of(1).unwrap();
        let mut known = vec![last.index];
        for size in 1..=100_000 {
            let class = Class::of(size).unwrap();
            assert!(class.size >= size && class.size.is_multiple_of(GRAIN), "{size}");
            assert!(class.size < size + GRAIN || class.size * 4 <= size * 5, "{size}: {class:?}");
            if class != last {
                assert_ne!(class.size, last.size);
                assert!(!known.contains(&class.index), "{size}: {class:?}");
                known.push(class.index);
                last = class;
            }
        }
        assert_eq!(Class::of(1 << 31).unwrap().index, CLASSES - 1);
    }

    #[test]
    fn blocks_are_aligned_and_apart() {
        let mut heap = heap(1 << 20);
        let mut blocks: Vec<_> =
            (1..300).map(|size| (heap.allocate(size).unwrap(), size)).collect();
        // Every third one is given back, and taken by another of its size.
        for (block, size) in blocks.iter_mut().step_by(3) {
            heap.free(*block, *size);
        }
        for (block, size) in blocks.iter_mut().step_by(3) {
            *block = heap.allocate(*size).unwrap();
        }
        blocks.sort_unstable();
        for pair in blocks.windows(2) {
            let [(block, size), (next, _)] = pair else { unreachable!() };
            assert!(block.is_multiple_of(GRAIN) && *block >= START);
            assert!(block + size <= *next);
        }
        let (last, size) = blocks[blocks.len() - 1];
        assert!(last + size <= heap.memory.end());
    }

    #[test]
    fn memory_does_not_grow_while_the_same_is_taken_and_given_back() {
        let mut heap = heap(1 << 20);
        let mut end = 0;
        for round in 0..100 {
            let sizes = [40, 24, 4096, 24, 33];
            let blocks = sizes.map(|size| heap.allocate(size).unwrap());
            // In another order each time.
            for index in (0..5).map(|index| (index * 2 + round) % 5) {
                heap.free(blocks[index], sizes[index]);
            }
            if round == 0 {
                end = heap.memory.end();
            }
            assert_eq!(heap.memory.end(), end);
        }
    }

    #[test]
    fn short_memory_gives_no_block_but_smaller_ones_still() {
        let mut heap = heap(1024);
        assert_eq!(heap.allocate(2048), None);
        assert_eq!(heap.allocate(usize::MAX), None);
        let block = heap.allocate(512).unwrap();
        assert_eq!(heap.allocate(512), None);
        heap.free(block, 512);
        assert_eq!(heap.allocate(500), Some(block));
    }
}
