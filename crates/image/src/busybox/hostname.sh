#!/bin/sh
# Tells which machine answered.
printf 'Content-Type: text/plain\r\n\r\n'
hostname
