//! Several processes that one launcher started, which know of each other: MPI, behind the feature `mpi`.

use fireproof_report::Shard;

/// This process among the others.
pub struct Processes {
    shard: Shard,
    #[cfg(feature = "mpi")]
    universe: mpi::environment::Universe,
}

impl Processes {
    /// Joins the others; `None` in a process that was started alone.
    #[cfg(feature = "mpi")]
    pub fn start() -> Option<Self> {
        use mpi::traits::Communicator;
        // MPI's own start would do in a lone process too, but not every library likes it without a launcher.
        std::env::var_os("OMPI_COMM_WORLD_SIZE").or_else(|| std::env::var_os("PMI_SIZE"))?;
        let universe = mpi::initialize()?;
        let world = universe.world();
        let (rank, size) = (u32::try_from(world.rank()).ok()?, u32::try_from(world.size()).ok()?);
        let shard = Shard::new(rank + 1, size).ok().filter(|_| size > 1)?;
        Some(Self { shard, universe })
    }

    /// Without the feature every process is alone; `--shard auto` splits the images, and `report` merges them.
    #[cfg(not(feature = "mpi"))]
    pub fn start() -> Option<Self> {
        None
    }

    /// The part of the images that is this process's.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Waits for all processes, and says whether each of them says yes.
    #[cfg(feature = "mpi")]
    pub fn all_did(&self, yes: bool) -> bool {
        use mpi::collective::SystemOperation;
        use mpi::traits::CommunicatorCollectives;
        let mut all = 0;
        self.universe.world().all_reduce_into(&i32::from(yes), &mut all, SystemOperation::min());
        all == 1
    }

    /// Likewise: one process.
    #[cfg(not(feature = "mpi"))]
    pub fn all_did(&self, yes: bool) -> bool {
        yes
    }
}
