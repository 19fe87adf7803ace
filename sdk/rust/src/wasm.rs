//! What the compiler cannot check: a place for the plugin, an allocator, and what is imported.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size};
use core::cell::RefCell;
use core::ptr;

use crate::heap::{GRAIN, Heap, Memory};

/// Octets of a page, the unit that a memory grows by.
const PAGE: usize = 64 << 10;

/// A value for a `static` of a module that has one thread.
pub struct Static<T>(RefCell<T>);

// SAFETY: without atomics a module has one thread and no memory that others see. With them, this
// does not compile.
#[cfg(not(target_feature = "atomics"))]
unsafe impl<T> Sync for Static<T> {}

impl<T> Static<T> {
    /// Holds `value`.
    pub const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Lends the value to `call`.
    pub fn with<R>(&self, call: impl FnOnce(&mut T) -> R) -> R {
        call(&mut self.0.borrow_mut())
    }
}

/// Hands the director a line for its log.
pub fn log(level: u32, line: &str) {
    #[link(wasm_import_module = "wvs")]
    unsafe extern "C" {
        #[link_name = "log"]
        fn wvs_log(level: u32, text: *const u8, len: usize);
    }
    // SAFETY: the director reads the line during the call and writes nothing.
    unsafe { wvs_log(level, line.as_ptr(), line.len()) }
}

/// The allocator of a module without the standard library. An alignment of more than 16 octets is
/// refused, as if memory were short.
pub struct Allocator(Static<Heap<LinearMemory>>);

impl Allocator {
    /// An allocator that took no memory yet.
    #[expect(clippy::new_without_default, reason = "only the macro makes one, in a constant")]
    pub const fn new() -> Self {
        Self(Static::new(Heap::new(LinearMemory)))
    }
}

// SAFETY: the heap's blocks are as large as the layout says, aligned to the grain, apart from each
// other and from whatever the linker placed, and last until they are freed.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > GRAIN {
            return ptr::null_mut();
        }
        let block = self.0.with(|heap| heap.allocate(layout.size()));
        block.map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.0.with(|heap| heap.free(block.expose_provenance(), layout.size()));
    }
}

/// The module's memory, from the end of what the linker placed there.
struct LinearMemory;

impl Memory for LinearMemory {
    fn start(&self) -> usize {
        unsafe extern "C" {
            /// Placed by the linker; only its address means something.
            static __heap_base: u8;
        }
        (&raw const __heap_base).expose_provenance()
    }

    fn end(&self) -> usize {
        memory_size(0) * PAGE
    }

    fn grow(&mut self, size: usize) -> bool {
        memory_grow(0, size.div_ceil(PAGE)) != usize::MAX
    }

    fn read(&self, address: usize) -> usize {
        // SAFETY: the heap reads words that it wrote to blocks that are free, and so its own.
        unsafe { ptr::with_exposed_provenance::<usize>(address).read() }
    }

    fn write(&mut self, address: usize, word: usize) {
        // SAFETY: the heap writes to blocks that are free, and so its own; they are aligned.
        unsafe { ptr::with_exposed_provenance_mut::<usize>(address).write(word) }
    }
}
