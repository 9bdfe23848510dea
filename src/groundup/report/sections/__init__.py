"""The parts of the page, in the order in which they are read. Each is empty where its stages have not run."""
