# The smallest configuration with a state worth guarding: terraform_data is
# built into terraform, so nothing has to be downloaded.
terraform {
  required_version = ">= 1.5"

  backend "s3" {
    bucket         = "tfguard-hello"
    key            = "hello/terraform.tfstate"
    region         = "us-east-1"
    dynamodb_table = "tfguard-hello-locks"
    encrypt        = true
  }
}

variable "greeting" {
  type    = string
  default = "hello"
}

resource "terraform_data" "hello" {
  input = var.greeting
}

output "greeting" {
  value = terraform_data.hello.output
}
