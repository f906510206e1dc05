//! How many file handles may be open at once, where the server does not say: what it lets be opened.
//!
//! A slot stands for one handle, from before its open is sent until its close is confirmed. An open that is refused
//! while others are open may be refused for their number, so it gives up its slot, the limit falls to what is open, and
//! it is tried again when one of those was closed. The limit creeps up again while all goes well.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Opens that succeed in a row, for each slot of the limit, before one more slot is tried.
const SUCCESSES_BEFORE_GROWTH: usize = 64;

/// The handles of one session.
pub struct Handles {
    state: Mutex<State>,
    max: usize,
}

struct State {
    /// Slots that may be out. At least 1.
    limit: usize,
    /// Slots that are out.
    used: usize,
    /// Those of them that stand for a handle which the server has given out.
    open: usize,
    successes: usize,
    /// Opens that were refused and wait for a slot, ahead of `waiting`.
    refused: VecDeque<oneshot::Sender<Slot>>,
    waiting: VecDeque<oneshot::Sender<Slot>>,
    closed: bool,
}

/// Permission to have one handle open. Goes to whoever waits next when dropped.
pub struct Slot {
    /// `None` once it was taken back by other means than being dropped.
    handles: Option<Arc<Handles>>,
    open: bool,
}

/// The session is over.
#[derive(Debug)]
pub struct Closed;

/// A refused open that waits for its next try. Unless it is [settled](Refused::settle), the limit was not the reason
/// and is set back.
pub struct Refused {
    handles: Arc<Handles>,
    withdrawn: usize,
}

impl Handles {
    pub fn new(max: usize) -> Arc<Self> {
        let state = State {
            limit: max.max(1),
            used: 0,
            open: 0,
            successes: 0,
            refused: VecDeque::new(),
            waiting: VecDeque::new(),
            closed: false,
        };
        Arc::new(Self { state: Mutex::new(state), max: max.max(1) })
    }

    /// How many handles may be open as far as is known.
    pub fn limit(&self) -> usize {
        self.lock().limit
    }

    /// Whether somebody waits for a slot.
    pub fn is_wanted(&self) -> bool {
        let state = self.lock();
        !(state.waiting.is_empty() && state.refused.is_empty())
    }

    /// A slot, in the order in which they were asked for.
    pub async fn acquire(self: &Arc<Self>) -> Result<Slot, Closed> {
        let slot = {
            let mut state = self.lock();
            if state.closed {
                return Err(Closed);
            }
            if state.used < state.limit && state.waiting.is_empty() && state.refused.is_empty() {
                state.used += 1;
                return Ok(self.slot());
            }
            let (to, slot) = oneshot::channel();
            state.waiting.push_back(to);
            slot
        };
        slot.await.map_err(|_| Closed)
    }

    /// Nobody waits for a slot any longer, and nobody gets one.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.refused.clear();
        state.waiting.clear();
    }

    fn slot(self: &Arc<Self>) -> Slot {
        Slot { handles: Some(Arc::clone(self)), open: false }
    }

    /// Gives free slots to those who wait for them, as far as the limit goes.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            if state.used >= state.limit {
                return;
            }
            let Some(to) = state.refused.pop_front().or_else(|| state.waiting.pop_front()) else { return };
            state.used += 1;
            drop(state);
            if let Err(mut unwanted) = to.send(self.slot()) {
                // Dropping it would come back here: the loop goes on instead.
                unwanted.handles = None;
                self.lock().used -= 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The server gave out the handle.
    pub fn opened(&mut self) {
        let Some(handles) = &self.handles else { return };
        self.open = true;
        let mut state = handles.lock();
        state.open += 1;
        state.successes += 1;
        if state.successes >= SUCCESSES_BEFORE_GROWTH * state.limit {
            state.successes = 0;
            state.limit = (state.limit + 1).min(handles.max);
        }
    }

    /// The open was refused, maybe for the number of open handles: gives the slot up for one that comes free when
    /// another handle was closed. `None` if none is open, so that their number cannot be the reason.
    pub fn exchange(mut self) -> Option<(Refused, oneshot::Receiver<Slot>)> {
        let handles = self.handles.clone()?;
        let mut state = handles.lock();
        if state.open == 0 || state.closed {
            // Released before `self` is, which takes the lock.
            drop(state);
            return None;
        }
        self.handles = None;
        state.used -= 1;
        let withdrawn = state.limit.saturating_sub(state.used);
        state.limit -= withdrawn;
        state.successes = 0;
        let (to, slot) = oneshot::channel();
        state.refused.push_back(to);
        drop(state);
        Some((Refused { handles, withdrawn }, slot))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(handles) = self.handles.take() else { return };
        let mut state = handles.lock();
        state.used -= 1;
        state.open -= usize::from(self.open);
        drop(state);
        handles.hand_out();
    }
}

impl Refused {
    /// The next try succeeded: the limit stays where it fell to.
    pub fn settle(mut self) {
        self.withdrawn = 0;
    }
}

impl Drop for Refused {
    fn drop(&mut self) {
        if self.withdrawn > 0 {
            let mut state = self.handles.lock();
            state.limit = (state.limit + self.withdrawn).min(self.handles.max);
            drop(state);
            self.handles.hand_out();
        }
    }
}
