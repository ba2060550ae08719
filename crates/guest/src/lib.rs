//! Supervision of the containers of one machine, shared by init and the container-class shim.
