//! The promises of the crate, each for every way in (a verb that starts work) and every way out (a verb that sees its end), on every
//! pool. `table` says for each cell whether the promise holds or why there is no such cell, `ways_in` and `ways_out` have one
//! counterpart for each verb, the tests run all cells that hold. `docs/promises.md` shows the same table.

mod job;
mod published;
mod started;
mod table;
mod verbs;
mod ways_in;
mod ways_out;
