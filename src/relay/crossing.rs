//! The buffers of a direction between two sides that speak different versions. They are the thread's, and empty between two
//! looks at a tunnel.

use std::cell::Cell;
use std::thread::LocalKey;

use crate::bridge::{Bridge, Port};
use crate::tunnel::Side;

/// A buffer that grew beyond this for one message is given back.
const KEPT_BYTES_MAX: usize = 512 * 1024;

thread_local! {
    static DECODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static ENCODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pub fn port(bridge: &mut Bridge, side: Side) -> &mut Port {
    match side {
        Side::Client => &mut bridge.client,
        Side::Backend => &mut bridge.backend,
    }
}

/// An empty buffer for what is decoded.
pub fn for_decoded() -> Lent {
    Lent { bytes: DECODED.take(), home: &DECODED }
}

/// An empty buffer for what is encoded.
pub fn for_encoded() -> Lent {
    Lent { bytes: ENCODED.take(), home: &ENCODED }
}

/// Goes back to its thread.
pub struct Lent {
    pub bytes: Vec<u8>,
    home: &'static LocalKey<Cell<Vec<u8>>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.shrink_to(KEPT_BYTES_MAX);
        self.home.set(bytes);
    }
}
