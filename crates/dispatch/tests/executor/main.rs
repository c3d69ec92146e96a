//! The executor with real processes. Every wait has an end.

mod endings;
mod harness;
mod outputs;
mod starts;
mod stops;
mod surroundings;
