//! The role as a whole: a worker over a fake VMM, network and images.
