//! OCI images: registry, layers, the pure merge and the read-only image.
