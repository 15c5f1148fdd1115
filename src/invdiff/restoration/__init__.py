"""The main job: from a file, or an array, to an estimate, samples and pictures of both."""
