//! One suite over every engine, with real sockets on loopback: client – tunnel – server.
//!
//! Each file holds tests as functions of a mode; `over_every_engine!` makes one test per
//! engine of each. Client, tunnel and server share one thread, as in a worker, so what a
//! test sees after its own read has been written by the tunnel before: no waiting for it.

/// Makes `copy::$test`, `pipe::$test` and `auto::$test` of each function.
macro_rules! over_every_engine {
    ($($test:ident),* $(,)?) => {
        over_every_engine!(@one copy, Copy, $($test),*);
        over_every_engine!(@one pipe, Pipe, $($test),*);
        over_every_engine!(@one auto, Auto, $($test),*);
    };
    (@one $module:ident, $mode:ident, $($test:ident),*) => {
        mod $module {
            $(#[test]
            fn $test() {
                super::on_worker(super::$test(crate::config::SpliceMode::$mode));
            })*
        }
    };
}

mod bounds;
mod bytes;
mod descriptors;
mod ends;
mod h2;
mod resets;
pub(super) mod support;
mod tls;
