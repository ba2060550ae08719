//! Client of the Machines API.
