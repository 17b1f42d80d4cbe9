"""The images task: data, features, and the task that workers get."""
