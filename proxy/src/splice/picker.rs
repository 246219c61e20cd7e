//! Which engine the next fill of a lane uses. Pure; the rule and its reasons are in `mod.rs`.

use crate::config::SpliceMode;

use super::{
    BUFFER_BYTES, BULK_READS, RETRY_FILLS, SMALL_FILL_BYTES, SMALL_FILLS, meter::Engine, why::Why,
};

/// Chooses for one lane.
#[derive(Debug)]
pub(super) struct Picker {
    adaptive: bool,
    engine: Engine,
    why: Option<Why>,
    /// Full reads in a row with `copy`.
    full_reads: u32,
    /// Small fills in a row with `pipe`.
    small_fills: u32,
    /// Fills left before a pipe is asked for again.
    hold_off: u32,
}

impl Picker {
    /// `must_copy`: why nothing else can be had, where the ends are not both sockets.
    ///
    /// Implements: REQ-TUN-002
    pub(super) fn new(mode: SpliceMode, must_copy: Option<Why>) -> Self {
        let (adaptive, engine, why) = match (mode, must_copy) {
            (SpliceMode::Copy, _) => (false, Engine::Copy, None),
            (_, Some(why)) => (false, Engine::Copy, Some(why)),
            (SpliceMode::Pipe, None) => (false, Engine::Pipe, None),
            (SpliceMode::Auto | SpliceMode::Kernel, None) => (true, Engine::Copy, None),
        };
        Self { adaptive, engine, why, full_reads: 0, small_fills: 0, hold_off: 0 }
    }

    /// The engine for the next fill, and why not another.
    pub(super) fn engine(&self) -> (Engine, Option<Why>) {
        match self.engine {
            Engine::Pipe if self.hold_off > 0 => (Engine::Copy, self.why),
            engine => (engine, self.why),
        }
    }

    /// `bytes` came in by `engine`.
    pub(super) fn filled(&mut self, engine: Engine, bytes: usize) {
        if self.hold_off > 0 {
            self.hold_off -= 1;
        } else if engine == Engine::Pipe {
            self.why = None;
        }
        if !self.adaptive {
            return;
        }
        match engine {
            Engine::Copy if bytes == BUFFER_BYTES => self.full_reads += 1,
            Engine::Copy => self.full_reads = 0,
            Engine::Pipe if bytes < SMALL_FILL_BYTES => self.small_fills += 1,
            _ => self.small_fills = 0,
        }
        if self.full_reads >= BULK_READS {
            self.switch(Engine::Pipe);
        } else if self.small_fills >= SMALL_FILLS {
            self.switch(Engine::Copy);
        }
    }

    /// There was no pipe: copy for a while.
    pub(super) fn no_pipe(&mut self) {
        self.why = Some(Why::NoPipe);
        self.hold_off = RETRY_FILLS;
    }

    /// splice(2) does not work here, for this reason: copy for good.
    pub(super) fn no_splice(&mut self, why: Why) {
        self.adaptive = false;
        self.engine = Engine::Copy;
        self.why = Some(why);
        self.hold_off = 0;
    }

    fn switch(&mut self, engine: Engine) {
        self.engine = engine;
        self.full_reads = 0;
        self.small_fills = 0;
        if engine == Engine::Copy {
            self.why = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPY: (Engine, Option<Why>) = (Engine::Copy, None);
    const PIPE: (Engine, Option<Why>) = (Engine::Pipe, None);

    fn fill(picker: &mut Picker, bytes: usize, times: u32) {
        for _ in 0..times {
            picker.filled(picker.engine().0, bytes);
        }
    }

    #[test]
    fn a_mode_that_names_an_engine_is_obeyed() {
        for (mode, expected) in [(SpliceMode::Copy, COPY), (SpliceMode::Pipe, PIPE)] {
            let mut picker = Picker::new(mode, None);
            fill(&mut picker, BUFFER_BYTES, 100);
            assert_eq!(picker.engine(), expected);
            fill(&mut picker, 1, 100);
            assert_eq!(picker.engine(), expected);
        }
    }

    #[test]
    fn what_is_no_socket_is_copied_and_says_why() {
        for why in [Why::H2Downstream, Why::H2Upstream, Why::Tls, Why::TlsOff, Why::Recorded] {
            for mode in [SpliceMode::Auto, SpliceMode::Pipe, SpliceMode::Kernel] {
                let mut picker = Picker::new(mode, Some(why));
                fill(&mut picker, BUFFER_BYTES, 100);
                assert_eq!(picker.engine(), (Engine::Copy, Some(why)));
            }
            assert_eq!(Picker::new(SpliceMode::Copy, Some(why)).engine(), COPY);
        }
    }

    #[test]
    fn auto_takes_the_pipe_for_bulk_only() {
        let mut picker = Picker::new(SpliceMode::Auto, None);
        fill(&mut picker, BUFFER_BYTES, BULK_READS - 1);
        fill(&mut picker, BUFFER_BYTES - 1, 1);
        fill(&mut picker, BUFFER_BYTES, BULK_READS - 1);
        assert_eq!(picker.engine(), COPY);
        fill(&mut picker, BUFFER_BYTES, 1);
        assert_eq!(picker.engine(), PIPE);
    }

    #[test]
    fn auto_gives_the_pipe_up_for_small_messages() {
        let mut picker = Picker::new(SpliceMode::Auto, None);
        fill(&mut picker, BUFFER_BYTES, BULK_READS);
        fill(&mut picker, 1, SMALL_FILLS - 1);
        fill(&mut picker, SMALL_FILL_BYTES, 1);
        fill(&mut picker, 1, SMALL_FILLS - 1);
        assert_eq!(picker.engine(), PIPE);
        fill(&mut picker, 1, 1);
        assert_eq!(picker.engine(), COPY);
    }

    #[test]
    fn a_lane_without_a_pipe_copies_and_asks_again() {
        let mut picker = Picker::new(SpliceMode::Pipe, None);
        picker.no_pipe();
        assert_eq!(picker.engine(), (Engine::Copy, Some(Why::NoPipe)));
        fill(&mut picker, 1, RETRY_FILLS - 1);
        assert_eq!(picker.engine(), (Engine::Copy, Some(Why::NoPipe)));
        fill(&mut picker, 1, 1);
        assert_eq!(picker.engine().0, Engine::Pipe);
        fill(&mut picker, 1, 1);
        assert_eq!(picker.engine(), PIPE);
    }

    #[test]
    fn where_splice_is_refused_a_lane_copies_for_good() {
        let mut picker = Picker::new(SpliceMode::Auto, None);
        fill(&mut picker, BUFFER_BYTES, BULK_READS);
        picker.no_splice(Why::NoSplice);
        fill(&mut picker, BUFFER_BYTES, 1000);
        assert_eq!(picker.engine(), (Engine::Copy, Some(Why::NoSplice)));
    }
}
