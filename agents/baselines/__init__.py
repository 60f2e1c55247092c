"""What any learned decider has to beat: chance, standing still, and the clinicians' written rules."""
