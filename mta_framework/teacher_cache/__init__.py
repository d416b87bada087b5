"""What a teacher computes for texts, kept on disk, so that it is asked once for every epoch, seed and run."""
