"""What has been learned in the forms that other programs read. A form is one file here."""
