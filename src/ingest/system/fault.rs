//! The ways in which a job kills its process or blocks it, as mistakes in a handler would.
//!
//! They are what the quarantine of poison and the recycling of stuck slots are tried out with.

use std::hint::black_box;

use crate::queue::JobError;

/// How much is taken at a time, in bytes.
const CHUNK: usize = 16 << 20;
/// Most chunks that are taken: a machine without any limit gets off with 4 GiB.
const MOST_CHUNKS: usize = 256;

/// Recurses until the stack is used up; the process dies by SIGABRT.
pub(super) fn overflow_stack() -> JobError {
    let depth = dig(0);
    JobError::Fatal(anyhow::anyhow!("the stack held {depth} frames"))
}

#[inline(never)]
fn dig(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    if depth == u64::MAX {
        return depth;
    }
    // The frame is used after the call, so that this is no loop.
    dig(depth + 1).max(black_box(frame).iter().sum())
}

/// Takes memory and uses it. Where the process has a limit of its own the allocation fails, of
/// which it dies by SIGABRT; where its control group has one, the kernel kills it.
pub(super) fn take_memory() -> JobError {
    let mut taken = Vec::new();
    for _ in 0..MOST_CHUNKS {
        taken.push(black_box(vec![1_u8; CHUNK]));
    }
    let n_bytes: usize = taken.iter().map(Vec::len).sum();
    JobError::Fatal(anyhow::anyhow!(
        "nobody minded that {n_bytes} bytes are taken"
    ))
}

/// Blocks its thread for ever.
pub(super) fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
