//! One model of progress for every system.
