//! Real brokers, real ensembles, faults, and a checker that says whether the promises were kept.

pub mod binary;
pub mod broker;
pub mod certificates;
pub mod checker;
pub mod cluster;
pub mod collector;
pub mod control_group;
pub mod damage;
pub mod driver;
pub mod eventually;
pub mod faults;
pub mod gaps;
pub mod http;
pub mod load;
pub mod network;
pub mod ports;
pub mod preload;
pub mod process;
pub mod recorder;
pub mod stamp;
pub mod timeline;
pub mod users;
pub mod wire;
pub mod zookeeper;
