//! Finished parts of units between the movers, who finish them in any order, and the one who
//! writes them in the order of the archive; bounded in bytes.
//!
//! Units are taken up in their order, and the unit that is being written (the head) always finds
//! room, so nobody waits for ever: the others stop when the room is used up, until the head moves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use archive::{LargeObjectsSummary, UnitSummary};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Bytes of the head that may wait beside.
const HEAD_ROOM: usize = 2 << 20;
/// What the part itself takes.
const OVERHEAD: usize = 256;

/// A piece of a unit, in the order of the file.
#[derive(Debug)]
pub(crate) enum Part {
    /// Bytes for the file.
    Bytes(Bytes),
    /// A large object of a directory begins: what follows goes into its own file.
    Object(u32),
    /// It ends.
    ObjectEnd,
    /// The unit of rows ends; the number is the server's.
    Rows(UnitSummary, u64),
    /// The unit of large objects ends.
    Objects(LargeObjectsSummary),
}

impl Part {
    fn cost(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len() + OVERHEAD,
            _ => OVERHEAD,
        }
    }
}

/// The work was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// See the module.
pub(crate) struct Board {
    state: Mutex<State>,
    room: Notify,
    news: Notify,
    turn: Notify,
    end: CancellationToken,
}

#[derive(Default)]
struct State {
    /// Bytes that may wait for units before them.
    room: usize,
    /// The unit that is being written.
    head: usize,
    used: usize,
    /// Most that was used.
    peak: usize,
    waiting: BTreeMap<usize, Queue>,
    /// Units that are left to the leader.
    left: BTreeSet<usize>,
    stopped: bool,
    done: bool,
}

#[derive(Default)]
struct Queue {
    parts: VecDeque<Part>,
    bytes: usize,
}

impl State {
    fn fits(&self, unit: usize, cost: usize) -> bool {
        if unit != self.head {
            return self.used + cost <= self.room;
        }
        let own = self.waiting.get(&unit).map_or(0, |queue| queue.bytes);
        own == 0 || self.used + cost <= self.room + HEAD_ROOM
    }
}

impl Board {
    /// `room`: bytes that may wait for units before them.
    pub(crate) fn new(room: usize) -> Self {
        let state = State {
            room,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            room: Notify::new(),
            news: Notify::new(),
            turn: Notify::new(),
            end: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a part; waits for room.
    pub(crate) async fn put(&self, unit: usize, part: Part) -> Result<(), Stopped> {
        let mut part = Some(part);
        loop {
            // Before the look, so that no news is missed.
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            if self.try_put(unit, &mut part)? {
                return Ok(());
            }
            room.await;
        }
    }

    /// Takes the part where there is room for it.
    fn try_put(&self, unit: usize, part: &mut Option<Part>) -> Result<bool, Stopped> {
        let mut state = self.state();
        if state.stopped {
            return Err(Stopped);
        }
        let cost = part.as_ref().map_or(0, Part::cost);
        if !state.fits(unit, cost) {
            return Ok(false);
        }
        state.used += cost;
        state.peak = state.peak.max(state.used);
        let queue = state.waiting.entry(unit).or_default();
        queue.bytes += cost;
        queue.parts.extend(part.take());
        if unit == state.head {
            self.news.notify_one();
        }
        Ok(true)
    }

    /// The next part of the head.
    pub(crate) async fn next(&self) -> Result<Part, Stopped> {
        loop {
            if let Some(part) = self.try_next()? {
                return Ok(part);
            }
            self.news.notified().await;
        }
    }

    fn try_next(&self) -> Result<Option<Part>, Stopped> {
        let mut state = self.state();
        if state.stopped {
            return Err(Stopped);
        }
        let head = state.head;
        let Some(queue) = state.waiting.get_mut(&head) else {
            return Ok(None);
        };
        let Some(part) = queue.parts.pop_front() else {
            return Ok(None);
        };
        let cost = part.cost();
        queue.bytes -= cost;
        state.used -= cost;
        self.room.notify_waiters();
        Ok(Some(part))
    }

    /// The head was written whole: the next unit becomes the head.
    pub(crate) fn advance(&self) {
        let mut state = self.state();
        let head = state.head;
        state.waiting.remove(&head);
        state.head += 1;
        self.room.notify_waiters();
        self.turn.notify_one();
    }

    /// Leaves a unit to the leader.
    pub(crate) fn leave(&self, unit: usize) {
        self.state().left.insert(unit);
        self.turn.notify_one();
    }

    /// Waits for the turn of a unit that was left to the leader; `None` when there is no more. Only
    /// the head is given out: a later one could use up the room that an earlier one needs.
    pub(crate) async fn turn(&self) -> Option<usize> {
        loop {
            {
                let mut state = self.state();
                if state.stopped || state.done {
                    return None;
                }
                let head = state.head;
                if state.left.remove(&head) {
                    return Some(head);
                }
            }
            self.turn.notified().await;
        }
    }

    /// Most bytes that waited at one time.
    pub(crate) fn peak(&self) -> usize {
        self.state().peak
    }

    /// Everything was written.
    pub(crate) fn done(&self) {
        self.state().done = true;
        self.turn.notify_one();
    }

    /// Gives the work up; whoever waits is told.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.waiting.clear();
        state.used = 0;
        self.room.notify_waiters();
        self.news.notify_one();
        self.turn.notify_one();
        self.end.cancel();
    }

    /// Waits until the work is given up.
    pub(crate) async fn stopped(&self) {
        self.end.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    const ROOM: usize = 12 << 20;

    fn bytes(length: usize) -> Part {
        Part::Bytes(Bytes::from(vec![7; length]))
    }

    /// Movers take units in order and write parts of any size; the writer is slow. Everything
    /// arrives in order, and what waits stays bounded.
    #[tokio::test(flavor = "multi_thread")]
    async fn parts_come_in_the_order_of_units_in_bounded_room() {
        const UNITS: usize = 60;
        let board = Arc::new(Board::new(ROOM));
        let next = Arc::new(AtomicUsize::new(0));
        let movers: Vec<_> = (0..4)
            .map(|_| {
                let (board, next) = (Arc::clone(&board), Arc::clone(&next));
                tokio::spawn(async move {
                    loop {
                        let unit = next.fetch_add(1, Ordering::Relaxed);
                        if unit >= UNITS {
                            return;
                        }
                        // One unit alone is bigger than the room.
                        let parts = if unit % 20 == 3 { 24 } else { unit % 5 };
                        for _ in 0..parts {
                            board.put(unit, bytes(1 << 20)).await.unwrap();
                        }
                        board.put(unit, Part::ObjectEnd).await.unwrap();
                    }
                })
            })
            .collect();
        for unit in 0..UNITS {
            let mut parts = 0;
            loop {
                let used = board.state().used;
                assert!(used <= ROOM + HEAD_ROOM, "{used}");
                match board.next().await.unwrap() {
                    Part::Bytes(_) => parts += 1,
                    _ => break,
                }
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            assert_eq!(parts, if unit % 20 == 3 { 24 } else { unit % 5 });
            board.advance();
        }
        for mover in movers {
            mover.await.unwrap();
        }
        assert_eq!(board.state().used, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn stopping_wakes_whoever_waits() {
        let board = Arc::new(Board::new(ROOM));
        let full = Arc::clone(&board);
        let mover = tokio::spawn(async move {
            loop {
                full.put(1, bytes(1 << 20)).await?;
            }
            #[expect(unreachable_code, reason = "tells the type")]
            Ok::<(), Stopped>(())
        });
        let (reader, leader) = (Arc::clone(&board), Arc::clone(&board));
        let reader = tokio::spawn(async move { reader.next().await.is_err() });
        let leader = tokio::spawn(async move { leader.turn().await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        board.stop();
        assert_eq!(mover.await.unwrap(), Err(Stopped));
        assert!(reader.await.unwrap());
        assert_eq!(leader.await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_leader_gets_a_unit_when_it_is_the_head() {
        let board = Board::new(ROOM);
        board.leave(2);
        board.leave(1);
        board.advance();
        assert_eq!(board.turn().await, Some(1));
        board.advance();
        assert_eq!(board.turn().await, Some(2));
        board.done();
        assert_eq!(board.turn().await, None);
    }
}
