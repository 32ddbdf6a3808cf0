//! What the journal promises, told on a disk that can crash.
