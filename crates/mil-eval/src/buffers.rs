//! Buffers that were freed and wait for their next use.
//!
//! A new large buffer costs a page fault every 4 KiB, which is more than most elementwise operations cost.

use std::sync::Mutex;

/// More than this is not kept waiting, unless a run is told otherwise.
pub const MAX_WAITING_BYTES: usize = 3 << 29;
/// Shorter buffers are left to the allocator.
const MIN_BYTES: usize = 1 << 15;

/// Buffers of floats and of bytes.
#[derive(Debug)]
pub(crate) struct Buffers {
    floats: Mutex<Waiting<f32>>,
    bytes: Mutex<Waiting<u8>>,
}

impl Buffers {
    /// Buffers of which at most so much is kept waiting, of each kind.
    pub(crate) fn new(max_waiting_bytes: usize) -> Self {
        Buffers {
            floats: Mutex::new(Waiting::new(max_waiting_bytes)),
            bytes: Mutex::new(Waiting::new(max_waiting_bytes)),
        }
    }

    /// `len` floats of any value.
    pub(crate) fn floats(&self, len: usize) -> Vec<f32> {
        lock(&self.floats).take(len)
    }

    /// `len` bytes of any value.
    pub(crate) fn bytes(&self, len: usize) -> Vec<u8> {
        lock(&self.bytes).take(len)
    }

    pub(crate) fn give_floats(&self, buffer: Vec<f32>) {
        lock(&self.floats).give(buffer);
    }

    pub(crate) fn give_bytes(&self, buffer: Vec<u8>) {
        lock(&self.bytes).give(buffer);
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers::new(MAX_WAITING_BYTES)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What waits is consistent after every step, so a panic elsewhere does no harm to it.
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[derive(Debug)]
struct Waiting<T> {
    buffers: Vec<Vec<T>>,
    total_bytes: usize,
    max_bytes: usize,
}

impl<T: Copy + Default> Waiting<T> {
    fn new(max_bytes: usize) -> Self {
        Waiting {
            buffers: Vec::new(),
            total_bytes: 0,
            max_bytes,
        }
    }

    /// The smallest buffer that is long enough and not far too long, else a new one.
    fn take(&mut self, len: usize) -> Vec<T> {
        let fits = |b: &Vec<T>| b.capacity() >= len && b.capacity() / 2 <= len;
        // Of equal ones the last given, which is nearest.
        let best = (0..self.buffers.len())
            .rev()
            .filter(|&i| fits(&self.buffers[i]))
            .min_by_key(|&i| self.buffers[i].capacity());
        let Some(best) = best else {
            return vec![T::default(); len];
        };
        let mut buffer = self.buffers.swap_remove(best);
        self.total_bytes -= size_bytes(&buffer);
        buffer.resize(len, T::default());
        buffer
    }

    /// Keeps a buffer; the ones that wait longest make room for it.
    fn give(&mut self, buffer: Vec<T>) {
        let size = size_bytes(&buffer);
        if !(MIN_BYTES..=self.max_bytes).contains(&size) {
            return;
        }
        while self.total_bytes + size > self.max_bytes {
            self.total_bytes -= size_bytes(&self.buffers.remove(0));
        }
        self.total_bytes += size;
        self.buffers.push(buffer);
    }
}

fn size_bytes<T>(buffer: &Vec<T>) -> usize {
    buffer.capacity() * size_of::<T>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_buffer_is_used_again_where_it_fits() {
        let buffers = Buffers::default();
        let first = buffers.floats(100_000);
        let at = first.as_ptr();
        buffers.give_floats(first);
        let short = buffers.floats(10_000);
        assert_ne!(short.as_ptr(), at);
        let second = buffers.floats(90_000);
        assert_eq!((second.as_ptr(), second.len()), (at, 90_000));
        buffers.give_floats(second);
        assert_eq!(buffers.floats(100_000).len(), 100_000);
    }

    #[test]
    fn no_more_waits_than_may() {
        let buffers = Buffers::new(1_000_000);
        for _ in 0..4 {
            buffers.give_floats(vec![0.0; 100_000]);
        }
        buffers.give_floats(vec![0.0; 300_000]);
        assert_eq!(lock(&buffers.floats).total_bytes, 800_000);
    }
}
