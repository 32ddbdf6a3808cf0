//! What the journal promises, told on a disk that can crash.

mod basics;
mod cleaning;
mod corruption;
mod crashes;
mod history;
mod identity;
mod limits;
mod real;
mod story;
