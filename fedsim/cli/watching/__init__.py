"""What is said of runs that go on: how long they will take, how they stand."""
